import keras
import numpy as np
import pytest

from keras_attn.layers import TransformerBlock
from tests.harness import check_layer, example, randomize, run, to_numpy
from tests.reference.vit import block, random_checkpoint

SHAPE = (2, 3, 4)


@pytest.mark.skipif(
    keras.backend.backend() == "jax",
    reason="compiles every operation; the attention in it is checked by itself",
)
def test_keeps_the_promises_of_a_layer():
    check_layer(
        TransformerBlock,
        {"num_heads": 2, "mlp_ratio": 2, "drop_path": 0.3},
        SHAPE,
        expected_num_trainable_weights=12,
        expected_num_seed_generators=1,
        expected_num_non_trainable_variables=1,
    )


def test_equals_the_numpy_version():
    layer = TransformerBlock(2)
    tokens = example(SHAPE)
    layer(tokens)
    tensors = random_checkpoint(width=4, depth=1)
    names = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    layers = (
        layer.attention_normalization,
        layer.attention.queries_keys_values,
        layer.attention.projection,
        layer.mlp_normalization,
        layer.expand,
        layer.reduce,
    )
    for name, part in zip(names, layers, strict=True):
        weight, bias = (
            tensors[f"blocks.0.{name}.{kind}"] for kind in ("weight", "bias")
        )
        part.set_weights([weight.T, bias])
    for found, one in zip(run(layer, tokens), to_numpy(tokens), strict=True):
        wanted, attention = block(tensors, "blocks.0", one.astype("float64"), 2)
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    found = to_numpy(layer(tokens, return_attention_scores=True)[1])[-1]
    np.testing.assert_allclose(found, attention, atol=1e-6)


def test_passes_on_what_is_asked_of_the_attention():
    layer, tokens = TransformerBlock(2), example(SHAPE)
    found, scores = layer(tokens, return_attention_scores=True)
    np.testing.assert_allclose(to_numpy(found), run(layer, tokens), atol=1e-6)
    row = to_numpy(layer(tokens, output="class_attention"))
    np.testing.assert_allclose(row, to_numpy(scores)[:, :, 0], atol=1e-6)


def test_reads_the_config_of_earlier_versions():
    config = TransformerBlock(2).get_config()
    config["heads"] = config.pop("num_heads")
    assert TransformerBlock.from_config(config).num_heads == 2


def test_leaves_out_branches_of_whole_examples_in_training():
    layer = TransformerBlock(2, drop_path=0.5)
    tokens = np.ones((64, 3, 4), "float32") * np.arange(4, dtype="float32")
    layer(tokens)
    randomize(layer)
    first = to_numpy(layer.attention(layer.attention_normalization(tokens)))[0]
    keras.utils.set_random_seed(0)
    layer.reduce.set_weights([np.zeros((16, 4)), np.zeros(4)])
    change = to_numpy(layer(tokens, training=True)) - tokens
    left_out = np.all(change == 0, axis=(1, 2))
    assert 16 < left_out.sum() < 48
    kept = change[~left_out]
    np.testing.assert_allclose(kept, np.broadcast_to(2 * first, kept.shape), rtol=1e-4)
    np.testing.assert_allclose(run(layer, tokens) - tokens, [first] * 64, rtol=1e-4)


def test_counts_its_products():
    layer = TransformerBlock(2, mlp_ratio=3)
    attention = 4 * 5 * 36 + 2 * 25 * 6
    assert layer.multiply_adds((None, 5, 6)) == attention + 2 * 5 * 6 * 18


@pytest.mark.parametrize(
    "arguments", [{"mlp_ratio": 0}, {"drop_path": 1.0}, {"drop_path": -0.1}]
)
def test_refuses_bad_arguments(arguments):
    with pytest.raises(ValueError, match=f"Expected `{list(arguments)[0]}`"):
        TransformerBlock(3, **arguments)
