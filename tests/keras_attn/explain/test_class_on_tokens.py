"""Maps of a class where the features are tokens."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_attn.explain import (
    grad_cam,
    gradient_rollout,
    hires_cam,
    integrated_gradients,
    last_map,
    legrad,
)
from keras_attn.explain.gradients import gradient
from keras_attn.models import vit
from tests.harness import to_numpy
from tests.reference.transformer_slopes import Transformer

pytestmark = pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="every operation and shape compiles"
)
GRID = 2, 3


@pytest.fixture(scope="module")
def transformer():
    model = vit((6, 2, 2), 4, (8, 12, 3), num_classes=3)
    random = np.random.default_rng(0)
    model.set_weights([0.6 * random.standard_normal(w.shape) for w in model.weights])
    return model


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(1)
    return random.standard_normal((2, 8, 12, 3)).astype("float32")


class Opaque(layers.Layer):
    """A layer whose inner layers no graph shows."""

    def __init__(self, model):
        super().__init__(name="opaque")
        self.model = model

    def call(self, images):
        return self.model(images)["logits"]


@pytest.fixture(scope="module")
def opaque(transformer):
    inputs = keras.Input((8, 12, 3))
    return keras.Model(inputs, layers.Softmax()(Opaque(transformer)(inputs)))


def test_legrad(transformer, images):
    reference, wanted = Transformer(transformer), []
    for image, label in zip(images, (2, 0), strict=True):
        found = reference.attention_and_slopes(image, label, alone=True)
        cells = sum(np.maximum(slope, 0).mean(axis=(0, 1)) for _, slope in found)
        wanted.append(cells[1:].reshape(GRID))
    found = to_numpy(legrad(transformer, images, [2, 0], raw=True))
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)
    assert np.std(wanted) > 1e-3


def test_gradient_rollout(transformer, images):
    reference, wanted = Transformer(transformer), []
    for image, label in zip(images, (2, 0), strict=True):
        flow = np.eye(7)
        for attention, slope in reference.attention_and_slopes(image, label, False):
            flow = flow + np.maximum(attention * slope, 0).mean(axis=0) @ flow
        wanted.append(flow[0, 1:].reshape(GRID))
    found = to_numpy(gradient_rollout(transformer, images, [2, 0], raw=True))
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)
    assert np.std(wanted) > 1e-3


@pytest.mark.parametrize("method", [legrad, gradient_rollout, grad_cam])
def test_the_same_where_all_blocks_are_in_one_layer(
    transformer, opaque, images, method
):
    wanted = to_numpy(method(transformer, images, labels=[[1, 2], [0, 1]]))
    found = to_numpy(method(opaque, images, labels=[[1, 2], [0, 1]]))
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert found.shape == (2, 2, 8, 12)


def test_grad_cam_takes_the_tokens_before_the_last_attention(
    transformer, opaque, images
):
    assert last_map(transformer) == "block_2/attention_normalization"
    assert last_map(opaque) == "opaque/vit/block_2/attention_normalization"
    block = transformer.get_layer("block_2")
    first = keras.Model(transformer.input, transformer.get_layer("block_1").output)
    entering = first(images)
    tokens = block.attention_normalization(entering)

    def score(tokens):
        x = entering + block.attention(tokens)
        x = x + block.reduce(block.expand(block.mlp_normalization(x)))
        x = transformer.get_layer("normalization")(x)
        return ops.sum(transformer.get_layer("logits")(x[:, 0])[:, 1])

    slope = to_numpy(gradient(score, tokens))[:, 1:]
    features = to_numpy(tokens)[:, 1:]
    wanted = np.maximum((slope.mean(axis=1, keepdims=True) * features).sum(-1), 0)
    found = to_numpy(grad_cam(transformer, images, target=1, raw=True))
    np.testing.assert_allclose(found, wanted.reshape(2, *GRID), atol=1e-4)
    wanted = np.maximum((slope * features).sum(-1), 0).reshape(2, *GRID)
    found = hires_cam(
        opaque, images, "block_2/attention_normalization", target=1, raw=True
    )
    np.testing.assert_allclose(to_numpy(found), wanted, atol=1e-4)


def test_of_attention_in_a_graph_of_single_operations(images):
    inputs = keras.Input((8, 12, 3))
    tokens = layers.Reshape((6, 4))(layers.Conv2D(4, 4, 4)(inputs))
    attention = layers.MultiHeadAttention(2, 4)
    model = keras.Model(inputs, layers.Dense(2)(attention(tokens, tokens)[:, 4]))
    # The fifth patch asks alone: its slope is the value's share in the score.
    given = keras.Model(inputs, tokens)(images)
    values = to_numpy(attention.value_dense(given))
    _, scores = attention(given, given, return_attention_scores=True)
    out = attention.output_dense.kernel, model.layers[-1].kernel
    slope = np.einsum("bkhd,hdw,w->bhk", values, *map(to_numpy, (out[0], out[1][:, 0])))
    wanted = np.maximum(slope, 0).mean(axis=1).reshape(2, *GRID) / 6
    found = to_numpy(legrad(model, images, target=0, raw=True))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    weighted = np.maximum(slope * to_numpy(scores)[:, :, 4], 0).mean(axis=1)
    flow = (weighted + 1).reshape(2, *GRID) / 6
    found = to_numpy(gradient_rollout(model, images, target=0, raw=True))
    np.testing.assert_allclose(found, flow, atol=1e-5)


def test_a_score_of_one_patch_is_explained_by_it(images):
    inputs = keras.Input((8, 12, 3))
    tokens = layers.Reshape((6, 48))(layers.Conv2D(48, 4, 4)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(tokens[:, 4]))
    raw = np.abs(to_numpy(integrated_gradients(model, images, target=0, raw=True)))
    assert raw[:, 4:, 4:8].min() > 0
    raw[:, 4:, 4:8] = 0
    assert raw.max() == 0


def test_layers_of_other_tokens_are_refused(transformer, opaque, images):
    with pytest.raises(ValueError, match="nearest is 'opaque/vit/block_1/expand'"):
        grad_cam(opaque, images, "opaque/vit/block_1/expant")
    plain = keras.Sequential(
        [keras.Input((8, 12, 3)), layers.Flatten(), layers.Dense(2)]
    )
    with pytest.raises(ValueError, match="computes none"):
        legrad(plain, images)
    inputs = keras.Input((8, 12, 3))
    x = layers.Reshape((4, 72), name="four")(inputs)
    gridless = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    with pytest.raises(ValueError, match="grid of patches.*layer='four'.*8 x 12"):
        grad_cam(gridless, images, "four")
