"""Random colours: the definition, the range of the factors, and the range of pixels."""

import numpy as np
import tensorflow as tf

from keras_attn.pipelines.augment.colour import Colour
from keras_attn.pipelines.augment.composition import parse
from keras_attn.pipelines.augment.operation import IMAGENET


def pictures(dtype="uint8"):
    shape = (4, 9, 7, 3)
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


def slow_colour(image, brightness, contrast, saturation):
    """The definition in double precision, with the grey that Pillow uses."""
    weights = np.array([299, 587, 114]) / 1000
    image = np.clip(image.astype("float64") * brightness, 0, 255)
    mean = (image @ weights).mean()
    image = np.clip(mean * (1 - contrast) + image * contrast, 0, 255)
    grey = (image @ weights)[..., None]
    return np.clip(grey * (1 - saturation) + image * saturation, 0, 255)


def test_pixels_equal_their_definition():
    factors = [(1.3, 1, 1), (1, 0.4, 1), (1, 1, 1.8), (0.7, 1.5, 0.0)]
    drawn = tf.constant(factors, tf.float32)
    images = pictures("float32")
    found = Colour().apply(tf.constant(images), drawn, IMAGENET).numpy()
    for image, result, each in zip(images, found, factors, strict=True):
        np.testing.assert_allclose(result, slow_colour(image, *each), atol=2e-3)
    rounded = Colour().apply(tf.constant(pictures()), drawn, IMAGENET)
    assert rounded.dtype == tf.uint8
    np.testing.assert_array_equal(rounded, np.round(found))


def test_factors_are_uniform_within_their_amounts_and_independent():
    amounts = (0.1, 0.3, 1.0)
    drawn = Colour(*amounts).draw(tf.constant([0, 1]), 4000).numpy()
    uniform = (drawn - 1) / amounts
    assert np.abs(uniform).max() <= 1.0001
    # Five standard deviations of means and of correlations.
    assert np.abs(uniform.mean(0)).max() < 5 * np.sqrt(1 / 3 / 4000)
    assert np.abs(uniform.std(0) - np.sqrt(1 / 3)).max() < 0.02
    assert np.abs(np.corrcoef(uniform.T) - np.eye(3)).max() < 5 / np.sqrt(4000)


def test_amounts_of_zero_change_nothing_and_one_amount_is_that_of_all():
    images = tf.constant(pictures())
    found = Colour(0.0, 0.0, 0.0)(images, tf.constant([0, 1]))
    np.testing.assert_array_equal(found, images)
    assert parse("colour(0.3)") == (("colour", (0.3, 0.3, 0.3)),)
