import keras
import numpy as np
import pytest
from PIL import Image

from keras_attn.layers.regional_max_pooling import RegionalMaxPooling
from keras_attn.preprocessing import ImagePreprocessing, ImageSpec
from keras_attn.training.retrieval import multi_scale
from keras_attn.training.retrieval.multi_scale import Excerpt, MultiScaleDescriber
from keras_attn.training.trained import Trained
from tests.training import tiny_models as tiny


def noise(seed, height, width):
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 256, (4, 4, 3), "uint8")
    return np.asarray(Image.fromarray(small).resize((width, height)))


def excerpts(*sizes):
    return [Excerpt(noise(i, *size), max(size)) for i, size in enumerate(sizes)]


def trained(model):
    return Trained(model, "model.keras")


@pytest.fixture(scope="module")
def colours():
    return trained(tiny.colour_model(patch_logits=False))


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def mean_colour(pixels, size, crop=True):
    """The mean channel values of the image in that size, of length one."""
    spec = ImageSpec(*size)
    fitted = np.asarray(ImagePreprocessing(spec).fit_size(pixels), "float64")
    rows, columns = (length // tiny.CELL * tiny.CELL for length in size)
    return unit(fitted[:rows, :columns].mean(axis=(0, 1)))


def test_the_models_own_size_in_chunks_and_in_order(colours, monkeypatch):
    monkeypatch.setattr(multi_scale, "CHUNK", 2)
    images = excerpts((16, 24), (30, 20), (40, 40), (16, 24), (9, 50))
    found = MultiScaleDescriber(colours).describe(iter(images))
    wanted = [mean_colour(excerpt.pixels, (16, 24)) for excerpt in images]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert found.dtype == "float32"


def test_descriptors_of_scales_are_averaged(colours):
    images = excerpts((40, 60), (30, 20))
    found = MultiScaleDescriber(colours, scales=(1.0, 2.0, 0.5)).describe(images)
    sizes = ((16, 24), (32, 48), (8, 12))
    wanted = [
        unit(sum(mean_colour(excerpt.pixels, size) for size in sizes))
        for excerpt in images
    ]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    alone = MultiScaleDescriber(colours).describe(images)
    assert np.abs(found - alone).max() > 1e-4


def test_the_longest_side_keeps_the_aspect_ratio_and_never_enlarges(colours):
    images = excerpts((64, 32), (16, 24), (32, 64), (64, 32))
    # Cut out of an image of 128 pixels, so it is halved although it is small.
    images.append(Excerpt(noise(9, 32, 48), 128))
    found = MultiScaleDescriber(colours, longest_side=64).describe(images)
    sizes = [(64, 32), (16, 24), (32, 64), (64, 32), (16, 24)]
    wanted = [
        mean_colour(excerpt.pixels, size)
        for excerpt, size in zip(images, sizes, strict=True)
    ]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_layers_that_need_a_fixed_size_see_one():
    inputs = keras.Input((16, 24, 3))
    x = ImagePreprocessing(ImageSpec(16, 24))(inputs)
    x = keras.layers.AveragePooling2D(4)(x)
    embedding = RegionalMaxPooling(2)(x)
    logits = keras.layers.Dense(2)(embedding)
    model = keras.Model(inputs, {"logits": logits, "embedding": embedding})
    images = excerpts((24, 36), (32, 16))
    found = MultiScaleDescriber(trained(model), longest_side=36).describe(images)
    for excerpt, descriptor in zip(images, found, strict=True):
        pooled = keras.layers.AveragePooling2D(4)(
            excerpt.pixels[None] / np.float32(255)
        )
        wanted = unit(np.asarray(RegionalMaxPooling(2)(pooled))[0])
        np.testing.assert_allclose(descriptor, wanted, atol=1e-5)


@keras.saving.register_keras_serializable(package="tests")
class OfEvenMaps(keras.layers.Layer):
    """Fails only when it is called with numbers."""

    def call(self, inputs):
        if inputs.shape[1] % 2:
            raise ValueError(f"Expected even maps. Received: {inputs.shape[1]} rows")
        return inputs

    def compute_output_shape(self, input_shape):
        return input_shape


@pytest.mark.parametrize(
    ("layer", "scale", "reason"),
    [
        (keras.layers.Flatten(), 2, "32 x 48 pixels. Input 0 .* axis -1"),
        (OfEvenMaps(), 0.5, "8 x 12 pixels. Expected even maps. Received: 1 rows$"),
    ],
)
def test_a_size_that_the_model_cannot_see_is_one_line(layer, scale, reason):
    inputs = keras.Input((16, 24, 3))
    x = ImagePreprocessing(ImageSpec(16, 24))(inputs)
    x = layer(keras.layers.AveragePooling2D(8)(x))
    if len(x.shape) == 4:
        x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = {"logits": keras.layers.Dense(2)(keras.layers.Dense(3)(x))}
    describer = MultiScaleDescriber(
        trained(keras.Model(inputs, outputs)), scales=(scale,)
    )
    with pytest.raises(ValueError, match=f"that model.keras can see.*{reason}"):
        describer.describe(excerpts((16, 24)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": ()}, "Expected positive scales"),
        ({"scales": (1, 0)}, "Expected positive scales"),
        ({"scales": (float("nan"),)}, "Expected positive scales"),
        ({"longest_side": 0}, "Expected a positive longest side"),
    ],
)
def test_refuses_bad_settings(colours, options, message):
    with pytest.raises(ValueError, match=message):
        MultiScaleDescriber(colours, **options)
