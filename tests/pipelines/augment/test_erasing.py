"""Random erasing: how often, where, how large, and with what."""

import numpy as np
import tensorflow as tf

from keras_attn.pipelines.augment.erasing import RandomErasing
from keras_attn.pipelines.augment.operation import Normalization
from keras_attn.pipelines.augment.operations import Augmentation


def seed_of(number):
    return tf.constant([number, 1], tf.int32)


def slow_erasing_box(draws, height, width):
    """The definition, one attempt after the other."""
    for share, shape, row, column in draws.astype("float64"):
        area = height * width * (0.02 + 0.31 * share)
        aspect = np.exp(np.log(0.3) + np.log(11) * shape)
        h, w = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if h < height and w < width:
            y, x = int(row * (height - h + 1)), int(column * (width - w + 1))
            return y, x, y + h, x + w
    return 0, 0, 0, 0


def test_erased_boxes_equal_their_definition():
    always = RandomErasing(probability=1.0)
    found = always.boxes(always.draw(seed_of(0), 400), (32, 45)).numpy()
    place_seed, _ = tf.unstack(tf.random.split(seed_of(0)))
    _, box_seed = tf.unstack(tf.random.split(place_seed))
    draws = tf.random.stateless_uniform((400, 10, 4), box_seed).numpy()
    wanted = [slow_erasing_box(drawn, 32, 45) for drawn in draws]
    assert (found == wanted).all(-1).mean() > 0.98
    assert (found[:, :2] >= 0).all() and (found[:, 2:] <= (32, 45)).all()
    # Both borders are reached.
    assert (found.min(0)[:2] == 0).all() and (found.max(0)[2:] == (32, 45)).all()


def test_a_fifth_of_the_images_is_erased_between_2_and_33_per_cent():
    erasing = RandomErasing()
    boxes = erasing.boxes(erasing.draw(seed_of(3), 4000), (400, 300)).numpy()
    sides = (boxes[:, 2:] - boxes[:, :2]).astype("float64")
    erased = sides[:, 0] > 0
    # Four standard deviations of 4000 draws.
    assert abs(erased.mean() - 0.2) < 4 * np.sqrt(0.2 * 0.8 / 4000)
    shares = np.sort(sides[erased].prod(-1) / 120_000)
    assert 0.0195 < shares.min() < 0.03 and 0.31 < shares.max() < 0.3335
    shapes = sides[erased, 0] / sides[erased, 1]
    assert 0.295 < shapes.min() < 0.34 and 3.0 < shapes.max() < 3.35
    # Small boxes always fit, so below a quarter of the area it is uniform.
    small = shares[shares < 0.22]
    ranks = (np.arange(len(small)) + 0.5) / len(small)
    assert np.abs((small - 0.02) / 0.2 - ranks).max() < 1.95 / np.sqrt(len(small))


def test_erasing_fills_boxes_with_normal_noise_of_the_networks_units():
    erasing = RandomErasing()
    mean, std = normalization = Normalization((0.2, 0.5, 0.7), (0.1, 0.2, 0.4))
    images = np.full((300, 24, 20, 3), 77.0, "float32")
    found = erasing(tf.constant(images), seed_of(4), normalization).numpy()
    changed = (found != images).any(-1)
    boxes = erasing.boxes(erasing.draw(seed_of(4), 300), (24, 20)).numpy()
    wanted = np.zeros_like(changed)
    for image, (y0, x0, y1, x1) in zip(wanted, boxes, strict=True):
        image[y0:y1, x0:x1] = True
    np.testing.assert_array_equal(changed, wanted)
    noise = (found[changed] / 255 - mean) / std
    assert len(noise) > 2000
    assert np.abs(noise.mean(0)).max() < 4 / np.sqrt(len(noise))
    assert np.abs(noise.std(0) - 1).max() < 4 / np.sqrt(2 * len(noise))
    assert np.abs(np.corrcoef(noise.T) - np.eye(3)).max() < 4 / np.sqrt(len(noise))
    # Clipped and rounded in 8-bit images, in the same places.
    rounded = erasing(tf.constant(images.astype("uint8")), seed_of(4), normalization)
    assert rounded.dtype == tf.uint8
    np.testing.assert_array_equal(rounded, np.round(np.clip(found, 0, 255)))


def test_erasing_leaves_translation_and_flip_as_they_are():
    images = tf.constant(np.full((60, 16, 12, 3), 9, "uint8"))
    plain = Augmentation("translate_flip")(images, seed_of(5)).numpy()
    found = Augmentation("translate_flip_erase")(images, seed_of(5)).numpy()
    same = (plain == found).all((1, 2, 3))
    assert 0.6 < same.mean() < 0.95
    transforms = [
        Augmentation(name).transforms(seed_of(5), 60, (16, 12))
        for name in ("translate_flip", "translate_flip_erase")
    ]
    np.testing.assert_array_equal(*transforms)
