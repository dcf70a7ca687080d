"""The layer that Grad-CAM takes by default."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_attn.explain import grad_cam, last_map
from keras_attn.models.warped_classifier import WARPS, warped_classifier
from tests.harness import to_numpy
from tests.keras_attn.explain.nested import nested_model

SIZE = (8, 12)


def classifier(head):
    images = keras.Input((*SIZE, 3))
    x = layers.Conv2D(4, 3, name="first")(images)
    y = layers.Conv2D(4, 3, name="second")(x)
    beside = layers.Conv2D(4, 3, name="beside")(y)
    pooled = layers.GlobalAveragePooling2D()(y)
    if head == "cell":
        pooled = layers.GlobalAveragePooling2D(keepdims=True, name="cell")(y)
        pooled = layers.Flatten()(pooled)
    outputs = {"logits": layers.Dense(3)(pooled), "beside": beside}
    return keras.Model(images, outputs)


@pytest.mark.parametrize("head", ["vector", "cell"])
def test_it_is_the_last_map_behind_the_scores(head):
    # Neither what the scores do not depend on, nor a single cell.
    assert last_map(classifier(head)) == "second"


def test_models_inside_models_are_searched():
    assert last_map(nested_model()) == "backbone/last"


def warped(deformation):
    volumetric = deformation == "volumetric_transformer"
    return warped_classifier(
        "small_resnet",
        deformation,
        num_classes=3,
        input_shape=(64, 96, 3),
        options={"groups": 8, "window": 5} if volumetric else None,
    )


@pytest.mark.parametrize("deformation", WARPS)
def test_it_lies_before_a_warp(deformation):
    model = warped(deformation)
    assert last_map(model) == "features"
    inputs = keras.Input((64, 96, 3))
    outer = keras.Model(inputs, layers.Softmax()(model(inputs)["logits"]))
    assert last_map(outer) == "warped_classifier/features"


def test_models_without_a_warp_end_in_the_layer_behind_it():
    assert last_map(warped("none")) == "warped"


def test_grad_cam_takes_it():
    model = warped("spatial_transformer")
    images = np.random.default_rng(0).uniform(0, 255, (1, 64, 96, 3))
    wanted = to_numpy(grad_cam(model, images, "features"))
    np.testing.assert_array_equal(to_numpy(grad_cam(model, images)), wanted)


def test_models_without_maps_are_an_error():
    model = keras.Sequential([keras.Input((*SIZE, 3)), layers.Flatten()])
    with pytest.raises(ValueError, match="Expected a model with feature maps"):
        last_map(model)
