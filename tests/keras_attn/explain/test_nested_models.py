"""Explanations of models that contain models, with several inputs and outputs."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_attn.explain import grad_cam, grad_cam_plus_plus
from keras_attn.graph.flat import FlatGraph, run
from keras_attn.graph.keras_graph import call_count
from tests.harness import to_numpy
from tests.keras_attn.explain.nested import (
    SIZE,
    by_hand,
    conv,
    nested_model,
    random_images,
    set_random_weights,
    slope_at_first,
)

LABELS = np.array([3, 0, 2])
SLOW_ON_JAX = pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="every operation and shape compiles"
)


@pytest.fixture(scope="module")
def model():
    return nested_model()


def test_the_flat_graph_computes_what_the_model_does(model):
    graph = FlatGraph(model)
    images = random_images()
    steps = graph.steps_to(graph.outputs, graph.inputs)
    found = run(steps, graph.input_values(images), graph.outputs)
    np.testing.assert_allclose(
        to_numpy(found[graph.outputs[0]]), to_numpy(model(images)), atol=1e-6
    )
    paths = {"scale", "backbone", "backbone/stem", "backbone/stem/first", "head/top"}
    assert paths < set(graph.named)
    assert graph.named["backbone"] == graph.named["backbone/last"]


@pytest.mark.parametrize("name", ["backbone/stem/first", "backbone/stem", "first"])
def test_of_a_layer_two_models_deep_equals_the_chain_rule(model, name):
    images = random_images()
    x, features, _ = by_hand(model, images)
    slope = slope_at_first(model, features, LABELS)
    weights = slope.mean(axis=(1, 2), keepdims=True)
    wanted = np.maximum((weights * x).sum(axis=-1), 0)
    assert wanted.max() > 1e-3
    found = to_numpy(grad_cam(model, images, name, LABELS, raw=True))
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("layer", [None, "backbone", "backbone/last", "last"])
def test_the_last_map_is_found_inside(model, layer):
    images = random_images()
    _, features, logits = by_hand(model, images)
    best = logits.argmax(axis=1)
    top = model.get_weights()[-2]
    wanted = np.maximum((features * top.T[best][:, None, None]).sum(axis=-1) / 15, 0)
    found = to_numpy(grad_cam(model, images, layer, raw=True))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert grad_cam(model, images, layer).shape == (3, *SIZE)


def test_plus_plus_equals_its_formula(model):
    """Derivatives of exp(y) are exp(y) g^n; the sums are written as loops."""
    images = random_images()
    x, features, logits = by_hand(model, images)
    slope = slope_at_first(model, features, LABELS)
    wanted = np.zeros(x.shape[:3])
    for n, label in enumerate(LABELS):
        score = np.exp(logits[n, label])
        for k in range(x.shape[-1]):
            first, second, third = (score * slope[n, :, :, k] ** p for p in (1, 2, 3))
            below = 2 * second + x[n, :, :, k].sum() * third
            alpha = np.divide(second, below, out=np.zeros_like(below), where=below != 0)
            weight = (alpha * np.maximum(first, 0)).sum()
            wanted[n] += weight * x[n, :, :, k]
        wanted[n] = np.maximum(wanted[n], 0) / score
    assert wanted.max() > 1e-2
    found = grad_cam_plus_plus(model, images, "backbone/stem", LABELS, raw=True)
    np.testing.assert_allclose(to_numpy(found), wanted, rtol=1e-3, atol=1e-5)


def test_neither_graph_nor_weights_nor_activation_change(model):
    top = model.get_layer("head").get_layer("top")
    before = model.get_weights(), call_count(top), top.activation
    grad_cam(model, random_images(), "backbone")
    for old, new in zip(before[0], model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert (call_count(top), top.activation) == before[1:]
    assert top.activation is keras.activations.softmax


def two_headed(as_dict):
    """Image and numbers in, two outputs out; a layer called twice."""
    image = keras.Input((*SIZE, 2), name="image")
    numbers = keras.Input((3,), name="numbers")
    shared = conv(2, "shared", activation=None)
    x = shared(shared(image))
    pooled = layers.GlobalAveragePooling2D()(x)
    both = layers.Concatenate()([pooled, numbers])
    animal = layers.Dense(4, name="animal", kernel_initializer="zeros")(both)
    colour = layers.Dense(2, name="colour", kernel_initializer="zeros")(both)
    if as_dict:
        inputs, outputs = [numbers, image], {"animal": animal, "colour": colour}
    else:
        inputs, outputs = {"image": image, "numbers": numbers}, [animal, colour]
    model = keras.Model(inputs, outputs)
    set_random_weights(model)
    return model


@SLOW_ON_JAX
@pytest.mark.parametrize("as_dict", [True, False])
def test_several_inputs_and_outputs_and_a_layer_called_twice(as_dict):
    model = two_headed(as_dict)
    random = np.random.default_rng(0)
    image = random.standard_normal((2, *SIZE, 2)).astype("float32")
    numbers = random.standard_normal((2, 3)).astype("float32")
    inputs = [numbers, image] if as_dict else {"numbers": numbers, "image": image}
    kernel, bias = model.get_layer("shared").get_weights()
    x = image @ kernel[0, 0] + bias
    x = x @ kernel[0, 0] + bias
    for index, name in enumerate(("animal", "colour")):
        top = model.get_layer(name).get_weights()[0][:2]
        wanted = np.maximum((x * top[:, 1]).sum(axis=-1) / np.prod(SIZE), 0)
        for output in (name, index):
            found = grad_cam(model, inputs, "shared", [1, 1], True, output)
            np.testing.assert_allclose(to_numpy(found), wanted, atol=1e-5)
    with pytest.raises(ValueError, match="one of .'animal', 'colour'.*output=None"):
        grad_cam(model, inputs, "shared")
    with pytest.raises(ValueError, match="image_input.*'numbers'"):
        grad_cam(model, inputs, "shared", output=0, image_input="numbers")


@SLOW_ON_JAX
@pytest.mark.parametrize(
    "end",
    [
        [layers.Activation("sigmoid")],
        [layers.Softmax()],
        [layers.Activation("softmax"), layers.Identity(dtype="float32")],
        [layers.Identity()],
    ],
    ids=["sigmoid", "softmax", "cast", "none"],
)
def test_probabilities_at_the_end_are_left_out(end):
    bare = nested_model(activation=None)
    inputs = keras.Input((*SIZE, 3))
    x = bare(inputs)
    for layer in end:
        x = layer(x)
    # Large logits, whose softmax has no slope left.
    images = 100 * random_images()
    wanted = to_numpy(grad_cam(bare, images, labels=LABELS, raw=True))
    found = grad_cam(keras.Model(inputs, x), images, labels=LABELS, raw=True)
    np.testing.assert_allclose(to_numpy(found), wanted, rtol=1e-5)
    assert wanted.max() > 0.1


@SLOW_ON_JAX
@pytest.mark.parametrize("method", [grad_cam, grad_cam_plus_plus])
def test_half_precision_agrees_with_float32(method):
    images = random_images()
    wanted = to_numpy(method(nested_model(), images, labels=LABELS))
    half = nested_model(dtype="mixed_float16")
    found = to_numpy(method(half, images, labels=LABELS))
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, wanted, atol=0.02)


@SLOW_ON_JAX
def test_gradients_that_vanish_in_half_precision():
    """A logit of 1e-7 a feature and 256 cells: slopes of 4e-10 are 0 in float16."""
    inputs = keras.Input((16, 16, 2))
    x = layers.Identity(name="features", dtype="float16")(inputs)
    x = layers.GlobalAveragePooling2D(dtype="float16")(x)
    top = layers.Dense(1, dtype="mixed_float16", use_bias=False)
    model = keras.Model(inputs, top(x))
    top.set_weights([np.array([[1e-7], [2e-7]])])
    images = np.zeros((1, 16, 16, 2), "float32")
    images[0, 3, 4] = (1000, 500)
    found = to_numpy(grad_cam(model, images, "features", raw=True))
    kernel = np.array([1e-7, 2e-7]).astype("float16").astype("float64")
    wanted = (kernel @ [1000, 500]) / 256
    np.testing.assert_allclose(found[0, 3, 4], wanted, rtol=0.01)
    assert np.count_nonzero(found) == 1


@SLOW_ON_JAX
def test_channels_first():
    """The same features, with their axes moved inside the models."""
    inputs = keras.Input((2, *SIZE))
    x = layers.Permute((2, 3, 1))(inputs)
    x = conv(3, "inner")(x)
    x = layers.Permute((3, 1, 2), name="first")(x)
    pooled = layers.GlobalAveragePooling2D(data_format="channels_first")(x)
    model = keras.Model(inputs, layers.Dense(4, kernel_initializer="zeros")(pooled))
    set_random_weights(model)
    images = np.random.default_rng(0).normal(size=(2, 2, *SIZE)).astype("float32")
    found = grad_cam(model, images, "first", data_format="channels_first")
    assert found.shape == (2, *SIZE)
    wanted = grad_cam(model, images, "inner", data_format="channels_first", raw=True)
    assert wanted.shape != found.shape
    kernel, bias, top, _ = model.get_weights()
    features = np.maximum(np.moveaxis(images, 1, -1) @ kernel[0, 0] + bias, 0)
    labels = to_numpy(model(images)).argmax(axis=1)
    wanted = np.maximum((features * top.T[labels][:, None, None]).sum(axis=-1), 0)
    low, high = (f(wanted, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    np.testing.assert_allclose(
        to_numpy(found), (wanted - low) / (high - low), atol=1e-5
    )


class Subclassed(keras.Model):
    def call(self, inputs):
        return ops.mean(inputs, axis=(1, 2))


def test_a_subclassed_model_is_told_what_works():
    with pytest.raises(ValueError, match="Subclassed.*`occlusion` works on any model"):
        grad_cam(Subclassed(), random_images())
    with pytest.raises(ValueError, match="not built.*`occlusion`"):
        grad_cam(keras.Sequential([layers.Dense(3)]), random_images())


def test_refuses_ambiguous_and_unknown_layers(model):
    inputs = keras.Input((*SIZE, 3))
    twin = nested_model().get_layer("backbone")
    pair = [model.get_layer("backbone"), keras.models.clone_model(twin)]
    pair[1].name = "other"
    outputs = layers.Add()([layers.GlobalMaxPooling2D()(each(inputs)) for each in pair])
    both = keras.Model(inputs, outputs)
    with pytest.raises(ValueError, match="any of .*'other/last', 'backbone/last'"):
        grad_cam(both, random_images(), "last")
    with pytest.raises(ValueError, match="nearest is 'backbone/stem/first'"):
        grad_cam(model, random_images(), "backbone/stem/frist")
    flat = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    with pytest.raises(ValueError, match="4|dimensions|four|image_input"):
        grad_cam(flat, np.ones((1, 3)))
