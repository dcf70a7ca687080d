import keras
import numpy as np
import pytest
from keras import layers

from keras_attn.explain import class_activation_map, grad_cam
from keras_attn.layers.class_activation_map import ClassActivationMap
from tests.harness import to_numpy
from tests.keras_attn.explain.nested import (
    SIZE,
    by_hand,
    conv,
    nested_model,
    random_images,
    set_random_weights,
)

LABELS = np.array([[3, 1], [0, 0], [2, 1]])
SLOW_ON_JAX = pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="every operation and shape compiles"
)


def test_is_the_linear_layer_in_every_cell():
    model, images = nested_model(), random_images()
    _, features, logits = by_hand(model, images)
    top, bias = model.get_weights()[-2:]
    wanted = np.stack(
        [x @ top.T[row].T for x, row in zip(features, LABELS, strict=True)]
    )
    found = to_numpy(class_activation_map(model, images, LABELS, raw=True))
    assert found.shape == (3, 2, 3, 5) and found.min() < 0
    np.testing.assert_allclose(found, np.moveaxis(wanted, -1, 1), atol=1e-5)
    # Their mean, and the bias, are the logits.
    means = found.mean(axis=(2, 3)) + bias[LABELS]
    np.testing.assert_allclose(means, np.take_along_axis(logits, LABELS, 1), atol=1e-5)


@SLOW_ON_JAX
def test_grad_cam_is_its_positive_part_divided_by_the_cells():
    model, images = nested_model(), random_images()
    maps = to_numpy(class_activation_map(model, images, raw=True))
    wanted = to_numpy(grad_cam(model, images, "backbone", raw=True))
    np.testing.assert_allclose(np.maximum(maps, 0) / 15, wanted, atol=1e-6)
    scaled = to_numpy(class_activation_map(model, images))
    assert scaled.shape == (3, *SIZE)
    assert scaled.min() == 0 and scaled.max() == pytest.approx(1)


def ending(kind):
    """Inputs are the features; the classifier has a kernel `(3, 4)`."""
    inputs = keras.Input((*SIZE, 3))
    pool, options = layers.GlobalAveragePooling2D, {"kernel_initializer": "zeros"}
    if kind == "convolution behind":
        x = layers.Dropout(0.5)(pool(keepdims=True)(inputs))
        x = layers.Flatten()(conv(4, "top", activation=None)(x))
        x = layers.Softmax()(x)
    elif kind == "convolution before":
        x = pool()(conv(4, "top", activation=None)(inputs))
    elif kind == "dense before":
        x = pool()(layers.Dense(4, **options)(inputs))
    else:
        x = ClassActivationMap(layers.Dense(4, **options))(inputs)
    model = keras.Model(inputs, x)
    set_random_weights(model)
    return model


@SLOW_ON_JAX
@pytest.mark.parametrize(
    "kind", ["convolution behind", "convolution before", "dense before", "layer"]
)
def test_in_every_order(kind):
    model, images = ending(kind), random_images()
    kernel = model.get_weights()[0].reshape(3, 4)
    found = class_activation_map(model, images, LABELS[:, 0], raw=True)
    columns = kernel.T[LABELS[:, 0]]
    wanted = np.einsum("nijk,nk->nij", images, columns)
    np.testing.assert_allclose(to_numpy(found), wanted, atol=1e-4)


@SLOW_ON_JAX
@pytest.mark.parametrize(
    "end, message",
    [
        ([layers.GlobalMaxPooling2D(), layers.Dense(2)], "'global_max_pooling2d"),
        ([layers.Flatten(), layers.Dense(2)], "its input"),
        (
            [
                layers.GlobalAveragePooling2D(),
                layers.Dense(3, "relu", name="hidden"),
                layers.Dense(2),
            ],
            "'hidden'",
        ),
    ],
)
def test_other_ends_are_refused(end, message):
    model = keras.Sequential([keras.Input((2, 3, 2)), *end])
    with pytest.raises(ValueError, match=f"GlobalAveragePooling2D.*{message}"):
        class_activation_map(model, np.ones((1, 2, 3, 2), "float32"))
