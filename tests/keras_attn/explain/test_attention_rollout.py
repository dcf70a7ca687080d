import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_attn.explain import attention_rollout
from keras_attn.models import attention_of, vit
from tests.harness import to_numpy

pytestmark = pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="every operation and shape compiles"
)


def rolled_out(attentions, residual=0.5, heads=np.mean):
    """Abnar & Zuidema, section 3, one image and one block after another."""
    results = []
    for image in range(len(attentions[0])):
        rollout = np.eye(attentions[0].shape[-1])
        for attention in attentions:
            matrix = heads(attention[image].astype("float64"), axis=0)
            matrix = (1 - residual) * matrix + residual * np.eye(len(matrix))
            rollout = matrix / matrix.sum(axis=1, keepdims=True) @ rollout
        results.append(rollout)
    return np.stack(results)


def softmax(scores):
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def transformer():
    model = vit((6, 3, 2), 4, (8, 12, 3), num_classes=2)
    random = np.random.default_rng(0)
    # Attention that differs from uniform.
    weights = [0.8 * random.standard_normal(w.shape) for w in model.get_weights()]
    model.set_weights(weights)
    return model


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(1)
    return random.standard_normal((2, 8, 12, 3)).astype("float32")


@pytest.mark.parametrize(
    "heads, residual", [("mean", 0.5), ("max", 0.5), ("min", 0.25)]
)
def test_of_our_transformer_inside_another_model(transformer, images, heads, residual):
    attentions = [
        to_numpy(attention_of(transformer, block)(images)) for block in range(3)
    ]
    wanted = rolled_out(attentions, residual, getattr(np, heads))
    wanted = wanted[:, 0, 1:].reshape(2, 2, 3)
    inputs = keras.Input((8, 12, 3))
    outer = keras.Model(inputs, transformer(inputs)["logits"])
    found = to_numpy(attention_rollout(outer, images, heads, residual, raw=True))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert wanted.std() > 1e-3
    found = to_numpy(attention_rollout(outer, images))
    assert found.shape == (2, 8, 12)
    assert found.min() == 0 and found.max() == pytest.approx(1)


def test_layers_are_left_as_they_were(transformer, images):
    attention_rollout(transformer, images)
    attention = transformer.get_layer("block_1").attention
    assert "call" not in vars(attention)
    with pytest.raises(ValueError, match="grid"):
        attention_rollout(transformer, images, grid=(4, 2))
    assert "call" not in vars(attention)


class Subclassed(keras.Model):
    """Two blocks of Keras's own attention, without a class token."""

    def __init__(self):
        super().__init__()
        self.blocks = [layers.MultiHeadAttention(2, 4) for _ in range(2)]

    def call(self, images):
        tokens = ops.reshape(images, (-1, 6, 3))
        first, _ = self.blocks[0](tokens, tokens, return_attention_scores=True)
        tokens = tokens + first
        return ops.mean(tokens + self.blocks[1](tokens, tokens), axis=1)


def test_of_multi_head_attention_in_a_subclassed_model():
    images = np.random.default_rng(0).normal(size=(2, 2, 3, 3)).astype("float32")
    model = Subclassed()
    model(images)
    random = np.random.default_rng(1)
    model.set_weights([random.standard_normal(w.shape) for w in model.get_weights()])
    tokens, attentions = images.reshape(2, 6, 3).astype("float64"), []
    for block in model.blocks:
        query, query_bias, key, key_bias, value, value_bias, out, out_bias = (
            block.get_weights()
        )
        q = np.einsum("btw,whd->bhtd", tokens, query) + query_bias[:, None]
        k = np.einsum("btw,whd->bhtd", tokens, key) + key_bias[:, None]
        v = np.einsum("btw,whd->bhtd", tokens, value) + value_bias[:, None]
        attentions.append(softmax(q @ k.swapaxes(2, 3) / 2))
        result = attentions[-1] @ v
        tokens = tokens + np.einsum("bhtd,hdw->btw", result, out) + out_bias
    wanted = rolled_out(attentions).mean(axis=1).reshape(2, 2, 3)
    found = to_numpy(attention_rollout(model, images, raw=True))
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_refuses_what_has_no_such_attention(transformer, images):
    plain = keras.Sequential([keras.Input((8, 12, 3)), layers.Flatten()])
    with pytest.raises(ValueError, match="SelfAttention or"):
        attention_rollout(plain, images)
    with pytest.raises(ValueError, match="`heads`.*heads='sum'"):
        attention_rollout(transformer, images, heads="sum")
    inputs = keras.Input((8, 12, 3))
    tokens = layers.Reshape((96, 3))(inputs)
    half = layers.AveragePooling1D(2)(tokens)
    attention = layers.MultiHeadAttention(1, 2)
    crossed = keras.Model(inputs, attention(half, tokens))
    with pytest.raises(ValueError, match="same tokens.*48, 96"):
        attention_rollout(crossed, images)
