import keras
import numpy as np
import pytest

from keras_attn.layers import SelfAttention
from tests.harness import change, check_layer, example, run, to_numpy

SHAPE = (2, 7, 12)


@pytest.fixture(scope="module")
def layer():
    layer = SelfAttention(3)
    layer.build(SHAPE)
    random = np.random.default_rng(0)
    layer.set_weights([random.normal(size=w.shape) / 3 for w in layer.weights])
    return layer


@pytest.fixture(scope="module")
def tokens():
    return example(SHAPE)


def test_keeps_the_promises_of_a_layer():
    check_layer(
        SelfAttention,
        {"num_heads": 3},
        SHAPE,
        expected_num_trainable_weights=4,
    )


def test_equals_torch(layer, tokens):
    torch = pytest.importorskip("torch")
    kernel, bias, last_kernel, last_bias = (
        torch.tensor(to_numpy(weight)) for weight in layer.weights
    )
    parts = torch.tensor(to_numpy(tokens)) @ kernel + bias
    q, k, v = parts.reshape(2, 7, 3, 3, 4).permute(2, 0, 3, 1, 4)
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    wanted = wanted.transpose(1, 2).reshape(SHAPE) @ last_kernel + last_bias
    np.testing.assert_allclose(run(layer, tokens), wanted.numpy(), atol=1e-5)
    attention = (q @ k.transpose(2, 3) / 2).softmax(dim=-1).numpy()
    found = to_numpy(layer(tokens, return_attention_scores=True)[1])
    np.testing.assert_allclose(found, attention, atol=1e-6)


def test_rows_of_the_attention_sum_to_one(layer, tokens):
    attention = to_numpy(layer(tokens, return_attention_scores=True)[1])
    assert attention.shape == (2, 3, 7, 7)
    np.testing.assert_allclose(attention.sum(axis=-1), 1.0, atol=1e-6)
    assert attention.std(axis=-1).min() > 1e-2


def test_attention_of_the_class_token_is_the_first_row(layer, tokens):
    """Without keys of their own, and with biases that cancel."""
    row = to_numpy(layer(tokens, output="class_attention"))
    wanted = to_numpy(layer(tokens, return_attention_scores=True)[1])[:, :, 0]
    np.testing.assert_allclose(row, wanted, atol=1e-6)
    assert layer.compute_output_shape(SHAPE, output="class_attention") == row.shape


def test_attention_in_half_precision(tokens):
    layer = SelfAttention(3, dtype="mixed_bfloat16")
    layer(tokens)
    row = layer(tokens, output="class_attention")
    assert "float32" in str(row.dtype)
    whole = layer(tokens, return_attention_scores=True)[1]
    assert "bfloat16" in str(whole.dtype)
    np.testing.assert_allclose(to_numpy(whole).sum(axis=-1), 1.0, atol=2e-2)
    np.testing.assert_allclose(to_numpy(row).sum(axis=-1), 1.0, atol=1e-5)


def test_scores_come_beside_the_tokens(layer, tokens):
    found, scores = layer(tokens, return_attention_scores=True)
    np.testing.assert_allclose(to_numpy(found), run(layer, tokens), atol=1e-6)
    shapes = layer.compute_output_shape(SHAPE, return_attention_scores=True)
    assert shapes == (tuple(found.shape), tuple(scores.shape))


def test_reads_the_config_of_earlier_versions(layer):
    config = layer.get_config()
    config["heads"] = config.pop("num_heads")
    assert SelfAttention.from_config(config).num_heads == 3


def test_scores_alone(layer, tokens):
    scores = to_numpy(layer(tokens, output="attention"))
    wanted = to_numpy(layer(tokens, return_attention_scores=True)[1])
    np.testing.assert_array_equal(scores, wanted)
    symbolic = keras.KerasTensor((None, 7, 12))
    shape = layer.compute_output_spec(symbolic, output="attention").shape
    assert shape == (None, 3, 7, 7)


def test_counts_its_products():
    layer = SelfAttention(3)
    assert layer.multiply_adds((None, 5, 6)) == 5 * 6 * 18 + 2 * 25 * 6 + 5 * 36


def test_refuses_bad_arguments(layer, tokens):
    for heads in (0, 1.5):
        with pytest.raises(ValueError, match="Expected `num_heads`"):
            SelfAttention(heads)
    with pytest.raises(ValueError, match="divide the width.*num_heads=5"):
        SelfAttention(5)(tokens)
    with pytest.raises(ValueError, match="Expected `output`.*'values'"):
        layer(tokens, output="values")


@pytest.mark.parametrize("kind", ["int8", "int4", "float8", "lora"])
def test_class_attention_is_that_of_a_changed_layer(kind):
    layer = SelfAttention(2)
    tokens = np.random.default_rng(0).standard_normal((2, 5, 8)).astype("float32")
    layer(tokens)
    change(layer.queries_keys_values, kind)
    found = to_numpy(layer(tokens, output="class_attention"))
    wanted = to_numpy(layer(tokens, output="attention"))[:, :, 0]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
