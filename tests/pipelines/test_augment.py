"""Augmentation: what it does to pixels, and that the seed alone decides it."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from pipelines import augment

NAMES = tuple(augment.AUGMENTATIONS)


def pictures(count=5, height=11, width=7, seed=0):
    """No pixel is zero, so that padding can be told from content."""
    shape = (count, height, width, 3)
    return np.random.default_rng(seed).integers(1, 256, shape).astype("uint8")


def slow_translate(image, row, column):
    """A loop over pixels."""
    result = np.zeros_like(image)
    height, width, _ = image.shape
    for y in range(height):
        for x in range(width):
            if 0 <= y + row < height and 0 <= x + column < width:
                result[y, x] = image[y + row, x + column]
    return result


def seed_of(number):
    return tf.constant([number, 1], tf.int32)


def require(name):
    if "grid_mask" in name:
        pytest.importorskip("keras_cv")


def test_translate_equals_a_loop_over_pixels():
    images = pictures()
    offsets = [(0, 0), (4, -4), (-1, 3), (-4, -4), (2, 0)]
    found = augment.translate(tf.constant(images), tf.constant(offsets)).numpy()
    for image, result, (row, column) in zip(images, found, offsets, strict=True):
        np.testing.assert_array_equal(result, slow_translate(image, row, column))


def test_random_translate_draws_every_offset_for_each_image_alone():
    images = pictures(1, 9, 9)
    batch = np.repeat(images, 2000, axis=0)
    found = augment.random_translate(tf.constant(batch), seed_of(0)).numpy()
    assert found.dtype == np.uint8 and found.shape == batch.shape
    offsets = [
        (row, column)
        for row in range(-augment.PADDING, augment.PADDING + 1)
        for column in range(-augment.PADDING, augment.PADDING + 1)
    ]
    known = {
        slow_translate(images[0], row, column).tobytes(): (row, column)
        for row, column in offsets
    }
    drawn = [known[result.tobytes()] for result in found]
    # 2000 draws of 81 places: about 25 each, none below 5 but for one in 10**5.
    counts = {offset: drawn.count(offset) for offset in offsets}
    assert min(counts.values()) >= 5 and max(counts.values()) <= 60


def test_random_flip_mirrors_half_of_the_images():
    images = pictures(1000, 3, 4)
    found = augment.random_flip(tf.constant(images), seed_of(0)).numpy()
    mirrored = (found == images[:, :, ::-1]).all((1, 2, 3))
    same = (found == images).all((1, 2, 3))
    assert (mirrored ^ same).all()
    assert 430 < mirrored.sum() < 570
    again = augment.random_flip(tf.constant(images), seed_of(1)).numpy()
    assert (again != found).any((1, 2, 3)).sum() > 400


def test_translation_and_flip_are_drawn_independently():
    images = np.repeat(pictures(1, 9, 9), 500, axis=0)
    found = augment.augment(tf.constant(images), seed_of(0), "translate_flip").numpy()
    # The first rows of zeros tell the row offset, the mirroring tells the flip.
    known = {}
    for row in range(-4, 5):
        for column in range(-4, 5):
            moved = slow_translate(images[0], row, column)
            known[moved.tobytes()] = row, 0
            known[moved[:, ::-1].tobytes()] = row, 1
    rows, flips = np.transpose([known[result.tobytes()] for result in found])
    assert abs(np.corrcoef(rows, flips)[0, 1]) < 0.15


def test_none_changes_nothing():
    images = pictures()
    np.testing.assert_array_equal(
        augment.augment(tf.constant(images), seed_of(0), "none"), images
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_eagerly_and_inside_a_dataset(name):
    require(name)
    images = pictures(6, 16, 16)
    eager = [
        augment.augment(tf.constant(images), seed_of(number), name).numpy()
        for number in range(3)
    ]
    dataset = tf.data.Dataset.range(3, output_type=tf.int32).map(
        lambda number: augment.augment(
            tf.constant(images), tf.stack([number, 1]), name
        ),
        num_parallel_calls=2,
    )
    for wanted, found in zip(eager, dataset, strict=True):
        assert found.dtype == tf.uint8
        np.testing.assert_array_equal(found, wanted)
    if name != "none":
        assert (eager[0] != eager[1]).any()


def test_the_grid_mask_blackens_part_of_each_image_and_leaves_the_rest():
    pytest.importorskip("keras_cv")
    images = pictures(40, 24, 24)
    found = augment.random_grid_mask(tf.constant(images), seed_of(0)).numpy()
    masked = (found == 0).all(-1)
    np.testing.assert_array_equal(found[~masked], images[~masked])
    shares = masked.mean((1, 2))
    # Squares of ratio r in 0..0.5 cover about r**2: a twelfth on average.
    assert 0.03 < shares.mean() < 0.16 and shares.max() < 0.45
    assert len({mask.tobytes() for mask in masked if mask.any()}) > 25


def test_the_grid_mask_names_the_extra_that_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    with pytest.raises(ImportError, match=r"pip install 'keras-attn\[augment\]'"):
        augment.augment(tf.constant(pictures()), seed_of(0), "translate_flip_grid_mask")


def test_an_unknown_name_is_an_error_that_names_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'translate_flip'"):
        augment.check_augmentation("translate_flipp")


def test_why_these_are_not_layers_of_keras():
    """What docs/augmentation.md says of them; if it fails, Keras has improved."""
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("elsewhere these layers have other troubles inside tf.data")
    places = np.zeros((16, 12, 12, 3), "float32")
    places[..., 0] = np.arange(144).reshape(12, 12)
    crop = keras.layers.RandomCrop(4, 4, seed=1)
    corners = [np.asarray(crop(places, training=True))[:, 0, 0, 0] for _ in range(4)]
    assert all(len(set(corner)) == 1 for corner in corners)
    assert len({corner[0] for corner in corners}) > 1

    def flips(first):
        flip = keras.layers.RandomFlip("horizontal", seed=1)
        dataset = tf.data.Dataset.range(first, 4)
        dataset = dataset.map(lambda number: flip(tf.constant(places), training=True))
        return [np.asarray(images)[:, 0, 0, 0] for images in dataset]

    whole, resumed = flips(0), flips(2)
    np.testing.assert_array_equal(resumed, whole[:2])
    assert np.any(np.not_equal(resumed, whole[2:]))
