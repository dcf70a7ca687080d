"""The image, the call, the class and the branch that an explanation is asked for."""

import functools

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_attn.explain import class_activation_map, grad_cam, last_map, occlusion
from keras_attn.models import anchornet
from tests.harness import to_numpy

POOL = layers.GlobalAveragePooling2D


def two_images(shared):
    """Two images through one convolution each, or both through the same."""
    random = np.random.default_rng(0)
    sizes = ((8, 12), (8, 12)) if shared else ((8, 12), (6, 10))
    inputs = [
        keras.Input((*size, 2), name=f"image_{i}") for i, size in enumerate(sizes)
    ]
    options = {"activation": "relu", "kernel_initializer": "zeros"}
    convolutions = [layers.Conv2D(3, 3, name=f"map_{i}", **options) for i in range(2)]
    if shared:
        convolutions = convolutions[:1] * 2
    maps = [each(x) for each, x in zip(convolutions, inputs, strict=True)]
    x = layers.Concatenate()([POOL()(each) for each in maps])
    model = keras.Model(inputs, layers.Dense(3, kernel_initializer="zeros")(x))
    shapes = [weight.shape for weight in model.get_weights()]
    model.set_weights([random.standard_normal(shape) for shape in shapes])
    images = [random.random((2, *size, 2), "float32") for size in sizes]
    return model, images


def by_hand(model, images, index, labels, layer):
    """Grad-CAM of a pooled linear classifier, which needs no gradient."""
    features = to_numpy(model.get_layer(layer)(images[index]))
    kernel = model.layers[-1].get_weights()[0][3 * index : 3 * index + 3]
    cells = features.shape[1] * features.shape[2]
    return np.maximum(np.einsum("bijk,kb->bij", features, kernel[:, labels]), 0) / cells


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("index", [0, 1])
def test_the_image_decides_the_layer_and_the_call(shared, index):
    model, images = two_images(shared)
    labels, layer = np.array([1, 2]), "map_0" if shared else f"map_{index}"
    wanted = by_hand(model, images, index, labels, layer)
    call = functools.partial(
        grad_cam, model, images, labels=labels, raw=True, image_input=f"image_{index}"
    )
    named = f"map_0/{index}" if shared else layer
    for given in (None, named, layer):
        np.testing.assert_allclose(to_numpy(call(layer=given)), wanted, atol=1e-6)
    assert last_map(model, image_input=index) == named
    if not shared:
        with pytest.raises(ValueError, match="do not reach"):
            call(layer=f"map_{1 - index}")


def binary(activation):
    inputs = keras.Input((6, 10, 3))
    x = POOL()(layers.Conv2D(4, 1, activation="relu")(inputs))
    model = keras.Model(inputs, layers.Dense(1, activation)(x))
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([-np.abs(kernel), bias])
    images = np.random.default_rng(0).random((2, 6, 10, 3), "float32")
    return model, images


@pytest.mark.parametrize("method", [grad_cam, class_activation_map, occlusion])
@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_one_score_speaks_for_two_classes(method, activation):
    model, images = binary(activation)
    default = to_numpy(method(model, images))
    # The features speak for class 0, which is the answer.
    assert default.max() > 0
    np.testing.assert_array_equal(
        to_numpy(method(model, images, labels=[0, 0])), default
    )
    raw = functools.partial(method, model, images, raw=True)
    both = to_numpy(raw(labels=[[0, 1], [0, 1]]))
    if method is grad_cam:
        assert both[:, 1].max() == 0
    else:
        np.testing.assert_allclose(both[:, 0], -both[:, 1], atol=1e-6)
    with pytest.raises(ValueError, match=r"in 0\.\.1"):
        raw(labels=[2, 0])


def test_one_hot_labels_are_labels():
    model, images = two_images(False)
    call = functools.partial(grad_cam, model, images, image_input=0, raw=True)
    wanted = to_numpy(call(labels=[2, 0]))
    rows = np.eye(3)[[2, 0]]
    for given in (rows, rows.astype("int64"), rows.astype(bool)):
        np.testing.assert_array_equal(to_numpy(call(labels=given)), wanted)
    with pytest.raises(ValueError, match="one-hot rows"):
        call(labels=np.full((2, 3), 0.5))


def test_two_integers_are_two_labels():
    model, images = binary("sigmoid")
    assert grad_cam(model, images, labels=[[0, 1], [1, 0]]).shape == (2, 2, 6, 10)
    floats = grad_cam(model, images, labels=[[0.0, 1.0], [1.0, 0.0]])
    wanted = grad_cam(model, images, labels=[1, 0])
    np.testing.assert_array_equal(to_numpy(floats), to_numpy(wanted))


@pytest.mark.parametrize("method", [grad_cam, occlusion])
def test_constant_maps_are_said_to_be(method):
    model, images = binary("sigmoid")
    images = images if method is grad_cam else np.ones_like(images)
    with pytest.warns(UserWarning, match="2 of 2 maps are constant.*class 1"):
        assert to_numpy(method(model, images, labels=[1, 1])).max() == 0


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="compiles for long")
def test_of_branches_the_deciding_one_is_explained():
    keras.utils.set_random_seed(0)
    model = anchornet((96, 96, 3), num_classes=3, branches=(63, 95))
    images = np.random.default_rng(0).random((4, 96, 96, 3), "float32")
    for size in (63, 95):
        layer = model.get_layer(f"evidence_{size}").classifier
        layer.kernel.assign(ops.cast(30.0, layer.kernel.dtype) * layer.kernel)
    outputs = {name: to_numpy(each) for name, each in model(images).items()}
    given = [2, 2, 2, 2]
    found = to_numpy(grad_cam(model, images, labels=given))
    maps = {
        size: to_numpy(grad_cam(model, images, labels=given, output=f"logits_{size}"))
        for size in (63, 95)
    }
    for row in range(4):
        size = next(
            size
            for size in (63, 95)
            if np.allclose(outputs["logits"][row], outputs[f"logits_{size}"][row])
        )
        np.testing.assert_allclose(found[row], maps[size][row], atol=1e-4)
