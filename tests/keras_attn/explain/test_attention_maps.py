import weakref

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_attn.explain import attention_maps
from keras_attn.graph import attention as reading
from keras_attn.models import attention_map_model, attention_of, vit
from tests.harness import to_numpy

pytestmark = pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="every operation and shape compiles"
)


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(1)
    return random.standard_normal((2, 8, 12, 3)).astype("float32")


@pytest.fixture(scope="module")
def transformer():
    model = vit((6, 3, 2), 4, (8, 12, 3))
    random = np.random.default_rng(0)
    model.set_weights([0.8 * random.standard_normal(w.shape) for w in model.weights])
    return model


@pytest.mark.parametrize("block, index", [(-1, 2), (-2, 1), (0, 0), ("block_2", 1)])
def test_of_our_transformer(transformer, images, block, index):
    wanted = to_numpy(attention_of(transformer, index)(images))
    found = to_numpy(attention_maps(transformer, images, block))
    np.testing.assert_allclose(
        found, wanted[:, :, 0, 1:].reshape(2, 2, 2, 3), atol=1e-6
    )
    found = to_numpy(attention_maps(transformer, images, block, query=(1, 2)))
    np.testing.assert_allclose(
        found, wanted[:, :, 6, 1:].reshape(2, 2, 2, 3), atol=1e-6
    )


def softmax(scores):
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


class Subclassed(keras.Model):
    """One block of attention among 2 x 3 patches, with registers before them."""

    def __init__(self, registers=2, **options):
        super().__init__()
        self.embed = layers.Conv2D(6, 4, 4)
        self.attention = layers.MultiHeadAttention(2, 4, **options)
        self.registers = registers

    def call(self, images):
        tokens = ops.reshape(self.embed(images), (-1, 6, 6))
        before = ops.ones_like(tokens[:, : self.registers])
        tokens = ops.concatenate([before, tokens], axis=1)
        mask = np.arange(6 + self.registers) != 1
        return self.attention(tokens, tokens, attention_mask=mask[None, None])


def in_numpy(model, images):
    kernel, bias, query, query_bias, key, key_bias, *_ = model.get_weights()
    parts = images.reshape(2, 2, 4, 3, 4, 3).transpose(0, 1, 3, 2, 4, 5)
    tokens = np.tensordot(parts, kernel, 3).reshape(2, 6, 6) + bias
    tokens = np.concatenate([np.ones((2, model.registers, 6)), tokens], axis=1)
    q = np.einsum("btw,whd->bhtd", tokens, query) + query_bias[:, None]
    k = np.einsum("btw,whd->bhtd", tokens, key) + key_bias[:, None]
    scores = q @ k.swapaxes(2, 3) / 2
    scores[..., 1] = -np.inf
    return softmax(scores)[..., model.registers :]


# By the fused function, by the layer's own softmax, and without a class token.
@pytest.mark.parametrize("registers, dropout", [(2, 0.0), (2, 0.1), (0, 0.0)])
def test_of_attention_in_a_subclassed_model(images, registers, dropout):
    model = Subclassed(registers, dropout=dropout)
    model(images)
    attention = in_numpy(model, images)
    wanted = attention[:, :, 0] if registers else attention.mean(axis=2)
    found = to_numpy(attention_maps(model, images))
    np.testing.assert_allclose(found, wanted.reshape(2, 2, 2, 3), atol=1e-5)


def test_flash_attention_is_computed_openly(images):
    model = Subclassed(flash_attention=True)
    other = Subclassed()
    other(images)
    with reading.Watch():
        model(images)
        model.set_weights(other.get_weights())
        found = to_numpy(model(images))
    np.testing.assert_allclose(found, to_numpy(other(images)), atol=1e-5)
    found = to_numpy(attention_maps(model, images))
    wanted = in_numpy(other, images)[:, :, 0].reshape(2, 2, 2, 3)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.skipif(
    keras.version().startswith(("3.10.", "3.11.", "3.12.")),
    reason="Keras before 3.13 does not repeat keys on TensorFlow",
)
@pytest.mark.parametrize("is_causal", [False, True])
def test_causal_biased_and_grouped_attention(is_causal):
    random = np.random.default_rng(0)
    query, key = random.standard_normal((2, 2, 5, 4, 3)).astype("float32")
    bias = random.standard_normal((1, 4, 5, 5)).astype("float32")
    scores = np.einsum("bthd,bshd->bhts", query, key[:, :, [0, 0, 1, 1]]) * 0.3
    # Torch has no kernel for both at once.
    options = {"is_causal": True} if is_causal else {"bias": bias}
    if is_causal:
        scores = np.where(np.tri(5, dtype=bool), scores, -np.inf)
    wanted = softmax(scores if is_causal else scores + bias)
    seen, keys = [], key[:, :, :2]
    with reading.Watch(lambda attention: seen.append(attention.rows([3, 1]))):
        ops.dot_product_attention(query, keys, keys, scale=0.3, **options)
    np.testing.assert_allclose(to_numpy(seen[0]), wanted[:, :, [3, 1]], atol=1e-5)


def test_functional_operations_and_the_exportable_model(images):
    inputs = keras.Input((8, 12, 3))
    x = layers.Conv2D(4, 4, 4)(inputs)
    x = layers.Reshape((6, 2, 2))(x)
    x = ops.dot_product_attention(x, x, x)
    model = keras.Model(inputs, x)
    found = to_numpy(attention_maps(model, images))
    assert found.shape == (2, 2, 2, 3)
    np.testing.assert_allclose(found.sum(axis=(2, 3)), 1, atol=1e-5)
    heads = to_numpy(attention_map_model(model)(images))
    np.testing.assert_allclose(np.moveaxis(heads, -1, 1), found, atol=1e-6)


def test_rows_of_other_blocks_are_not_kept(transformer, images, monkeypatch):
    alive, most = weakref.WeakSet(), []
    kept = reading.Rows

    def counting(*args):
        rows = kept(*args)
        alive.add(rows)
        most.append(len(alive))
        return rows

    monkeypatch.setattr(reading, "Rows", counting)
    attention_maps(transformer, images)
    assert len(most) == 3 and max(most) <= 2


def test_one_line_for_what_is_missing(transformer, images):
    def message(model, *args, **kwargs):
        with pytest.raises(ValueError) as error:
            attention_maps(model, images, *args, **kwargs)
        assert "\n" not in str(error.value)
        return str(error.value)

    plain = keras.Sequential([keras.Input((8, 12, 3)), layers.Conv2D(4, 3)])
    assert "Received: a model without any" in message(plain)
    assert "nearest is 'block_3'" in message(transformer, "block_33")
    assert "3 blocks" in message(transformer, 3) and "block=-4" in message(
        transformer, -4
    )
    assert "2 x 3 patches. Received: query=(2, 0)" in message(transformer, query=(2, 0))
    assert "within windows" not in message(plain)
    inputs = keras.Input((8, 12, 3))
    x = layers.Reshape((4, 72))(inputs)
    gridless = keras.Model(inputs, layers.MultiHeadAttention(1, 2)(x, x))
    assert "(2, 1, 4, 4)" in message(gridless)
    assert attention_maps(gridless, images, grid=(2, 2)).shape == (2, 1, 2, 2)
    with pytest.raises(ValueError, match="known size"):
        attention_map_model(keras.Sequential([keras.Input((None, None, 3))]))
