import keras
import numpy as np
import pytest
from PIL import Image

from keras_attn.preprocessing import ImagePreprocessing, ImageSpec, spec_of
from tests.harness import to_numpy

SPEC = ImageSpec(
    height=8,
    width=12,
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.3, 0.1),
    interpolation="bilinear",
    class_names=("cat", "dog"),
)


def photograph(height, width, seed=0):
    """A smooth random image."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), "uint8")
    return np.asarray(Image.fromarray(small).resize((width, height), Image.BICUBIC))


def test_normalises_images_of_the_right_size():
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 3), "uint8")
    wanted = (images / 255 - np.array(SPEC.mean)) / np.array(SPEC.std)
    layer = ImagePreprocessing(SPEC)
    np.testing.assert_allclose(to_numpy(layer(images)), wanted, atol=1e-5)
    floats = images.astype("float32")
    np.testing.assert_allclose(to_numpy(layer(floats)), wanted, atol=1e-5)


@pytest.mark.parametrize("size", [(16, 24), (40, 24), (23, 71)])
def test_fits_other_sizes_like_pillow(size):
    """Centre crop to the aspect ratio and antialiased resize, to one grey level."""
    height, width = size
    image = photograph(height, width)
    layer = ImagePreprocessing(SPEC)
    fitted = to_numpy(layer.fit_size(image[None]))[0]
    crop_height = min(height, int(width * 8 / 12))
    crop_width = min(width, int(height * 12 / 8))
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    crop = image[top : top + crop_height, left : left + crop_width]
    wanted = np.asarray(Image.fromarray(crop).resize((12, 8), Image.BILINEAR))
    assert fitted.dtype == np.uint8 or np.all(fitted == np.round(fitted))
    assert np.abs(fitted.astype(int) - wanted).max() <= 1


def test_crop_fraction_keeps_the_centre():
    spec = ImageSpec(height=8, width=8, crop_fraction=0.5)
    image = np.zeros((1, 16, 16, 3), "uint8")
    image[:, 4:12, 4:12] = 200
    fitted = to_numpy(ImagePreprocessing(spec).fit_size(image))
    np.testing.assert_array_equal(fitted, np.full((1, 8, 8, 3), 200))


def test_same_inside_tf_data_as_outside():
    tensorflow = pytest.importorskip("tensorflow")
    image = photograph(40, 31)
    layer = ImagePreprocessing(SPEC)
    dataset = tensorflow.data.Dataset.from_tensors(image).map(layer.fit_size)
    (inside,) = list(dataset.as_numpy_iterator())
    np.testing.assert_array_equal(inside, to_numpy(layer.fit_size(image[None]))[0])


def test_any_size_and_dtype_through_the_call():
    layer = ImagePreprocessing(SPEC, dtype="mixed_bfloat16")
    image = photograph(20, 20).astype("float32")[None]
    outputs = layer(image)
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    assert outputs.shape == layer.compute_output_shape(image.shape) == (1, 8, 12, 3)


def test_spec_travels_with_the_model(tmp_path):
    inputs = keras.Input((8, 12, 3))
    outputs = keras.layers.Flatten()(ImagePreprocessing(SPEC)(inputs))
    model = keras.Model(inputs, outputs)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert spec_of(loaded) == SPEC
    images = np.random.default_rng(0).uniform(0, 255, (2, 8, 12, 3))
    np.testing.assert_array_equal(
        loaded.predict(images, verbose=0), model.predict(images, verbose=0)
    )


def test_spec_survives_its_dict_and_is_complete():
    assert ImageSpec.from_dict(SPEC.to_dict()) == SPEC
    layer = ImagePreprocessing.from_config(ImagePreprocessing(SPEC).get_config())
    assert layer.spec == SPEC


def test_refuses_what_is_no_rgb_image_or_spec():
    with pytest.raises(ValueError, match="axis -1"):
        ImagePreprocessing(SPEC)(np.zeros((1, 8, 12, 4), "float32"))
    with pytest.raises(ValueError, match="without an ImagePreprocessing layer"):
        spec_of(keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]))
    with pytest.raises(ValueError, match="Expected an ImageSpec"):
        ImagePreprocessing(32)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"height": 0}, "positive size"),
        ({"std": (1, 0, 1)}, "standard deviations"),
        ({"interpolation": "cubic"}, "interpolation"),
        ({"crop_fraction": 0.0}, "crop_fraction"),
    ],
)
def test_refuses_wrong_specs(changes, message):
    with pytest.raises(ValueError, match=message):
        ImageSpec(**{"height": 8, "width": 8, **changes})


def test_without_resizing_images_keep_their_size():
    layer = ImagePreprocessing(SPEC, resize=False)
    image = photograph(20, 7)[None]
    wanted = (image / 255 - np.array(SPEC.mean)) / np.array(SPEC.std)
    np.testing.assert_allclose(to_numpy(layer(image)), wanted, atol=1e-5)
    assert layer.compute_output_shape((None, None, None, 3)) == (None, None, None, 3)
    revived = ImagePreprocessing.from_config(layer.get_config())
    assert revived(image).shape == (1, 20, 7, 3)


def test_spec_is_found_in_a_model_inside_a_model():
    images = keras.Input((8, 12, 3))
    inner = keras.Model(images, ImagePreprocessing(SPEC)(images))
    outer_images = keras.Input((8, 12, 3))
    outer = keras.Model(outer_images, keras.layers.Flatten()(inner(outer_images)))
    assert spec_of(outer) == SPEC


def test_fitting_images_does_not_turn_training_on():
    images = keras.Input((None, None, 3))
    x = ImagePreprocessing(SPEC)(images)
    normalization = keras.layers.BatchNormalization()
    model = keras.Model(images, normalization(x))
    model(photograph(20, 7)[None])
    np.testing.assert_array_equal(to_numpy(normalization.moving_mean), np.zeros(3))


def test_a_models_own_spec_comes_before_that_of_a_model_inside():
    images = keras.Input((8, 12, 3))
    inner = keras.Model(images, ImagePreprocessing(SPEC)(images))
    outer_images = keras.Input((8, 12, 3))
    own = ImageSpec(8, 12, class_names=("a", "b"))
    # Deeper, so that it comes first in the model's order.
    seen = keras.layers.ReLU()(keras.layers.ReLU()(inner(outer_images)))
    outputs = keras.layers.Add()([seen, ImagePreprocessing(own)(outer_images)])
    assert spec_of(keras.Model(outer_images, outputs)) == own
