import keras
import numpy as np
import pytest

from keras_attn.models.warped_classifier import DEFORMATIONS, warped_classifier
from tests.harness import slow_on, to_numpy

SHAPE = (40, 48, 3)
OPTIONS = {"volumetric_transformer": {"groups": 8, "window": 3}}
GROUPS = {
    "volumetric_transformer": 8,
    "spatial_transformer": 1,
    "saliency_sampler": 1,
    "attention_sampler": 1,
}

pytestmark = slow_on("jax")


def build(deformation="none", **arguments):
    return warped_classifier(
        "small_resnet",
        deformation,
        num_classes=5,
        input_shape=SHAPE,
        options=OPTIONS.get(deformation),
        **arguments,
    )


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(2, *SHAPE)).astype("float32")


@pytest.fixture(scope="module")
def plain(images):
    model = build()
    return model, model(images)


@pytest.mark.parametrize("deformation", DEFORMATIONS)
def test_outputs(deformation, images):
    model = build(deformation, warped_output=True)
    outputs = model(images)
    shapes = {name: tuple(value.shape) for name, value in outputs.items()}
    wanted = {"logits": (2, 5), "embedding": (2, 96), "warped": (2, 5, 6, 96)}
    if deformation in GROUPS:
        wanted["fields"] = (2, 5, 6, GROUPS[deformation], 2)
    assert shapes == wanted
    lengths = np.linalg.norm(to_numpy(outputs["embedding"]), axis=-1)
    np.testing.assert_allclose(lengths, 1.0, rtol=1e-5)
    assert {"features", "warped"} <= {layer.name for layer in model.layers}


@pytest.mark.parametrize(
    "deformation", ["spatial_transformer", "deformable_convolution"]
)
def test_deformations_that_begin_as_the_plain_network(deformation, images, plain):
    model = build(deformation)
    for layer in plain[0].layers:
        if layer.weights:
            ours = model.get_layer(layer.name)
            for weight in layer.weights:
                named = [w for w in ours.weights if w.name == weight.name]
                named[0].assign(weight)
    outputs = model(images)
    for name in ("logits", "embedding"):
        np.testing.assert_allclose(
            to_numpy(outputs[name]), to_numpy(plain[1][name]), atol=1e-4
        )


def test_second_order_pooling_follows_the_warp(images):
    model = build("volumetric_transformer", pooling="isqrt_cov", reduced_channels=8)
    assert model(images)["embedding"].shape == (2, 36)


def test_the_unwarped_map_decides_where_the_fields_point(images):
    """A volumetric transformer on a constant map pulls inwards at the borders."""
    model = build("volumetric_transformer")
    maps = keras.Model(model.input, model.get_layer("features").output)
    warp = keras.Model(
        model.get_layer("features").output,
        model.get_layer("deformation").output,
    )
    found = warp(np.ones(maps(images).shape, "float32"))
    fields = to_numpy(found["fields"] if isinstance(found, dict) else found[-1])
    np.testing.assert_allclose(fields[0, 0, 0, 0], [0.5, 0.5], atol=1e-5)
    np.testing.assert_allclose(fields[0, 2, 2, 0], [0.0, 0.0], atol=1e-5)


def test_refuses_an_unknown_deformation():
    with pytest.raises(ValueError, match="Did you mean 'volumetric_transformer'"):
        build("volumetric_transformers")
