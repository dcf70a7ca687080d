"""Augmentation: what it does to pixels, and that the seed alone decides it."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from keras_attn.pipelines.augment.composition import AUGMENTATIONS, OPERATIONS
from keras_attn.pipelines.augment.operation import IMAGENET, Operation
from keras_attn.pipelines.augment.operations import (
    KINDS,
    Augmentation,
    Flip,
    Translate,
    operation_seed,
)

NAMES = (*AUGMENTATIONS, "colour", "resize(20)|random_crop(16)|flip(0.3)|erase(0.25)")


def pictures(count=5, height=11, width=7, seed=0):
    """No pixel is zero, so that padding differs from content."""
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


def test_translate_equals_a_loop_over_pixels():
    images = pictures()
    offsets = [(0, 0), (4, -4), (-1, 3), (-4, -4), (2, 0)]
    found = (
        Translate().apply(tf.constant(images), tf.constant(offsets), IMAGENET).numpy()
    )
    for image, result, (row, column) in zip(images, found, offsets, strict=True):
        np.testing.assert_array_equal(result, slow_translate(image, row, column))


def test_random_translate_draws_every_offset_for_each_image_alone():
    images = pictures(1, 9, 9)
    batch = np.repeat(images, 2000, axis=0)
    found = Translate()(tf.constant(batch), seed_of(0)).numpy()
    assert found.dtype == np.uint8 and found.shape == batch.shape
    offsets = [(row, column) for row in range(-4, 5) for column in range(-4, 5)]
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
    found = Flip()(tf.constant(images), seed_of(0)).numpy()
    mirrored = (found == images[:, :, ::-1]).all((1, 2, 3))
    same = (found == images).all((1, 2, 3))
    assert (mirrored ^ same).all()
    assert 430 < mirrored.sum() < 570
    again = Flip()(tf.constant(images), seed_of(1)).numpy()
    assert (again != found).any((1, 2, 3)).sum() > 400


def test_translation_and_flip_are_drawn_independently():
    images = np.repeat(pictures(1, 9, 9), 500, axis=0)
    found = Augmentation("translate_flip")(tf.constant(images), seed_of(0)).numpy()
    # The first rows of zeros tell the row offset, the mirroring tells the flip.
    known = {}
    for row in range(-4, 5):
        for column in range(-4, 5):
            moved = slow_translate(images[0], row, column)
            known[moved.tobytes()] = row, 0
            known[moved[:, ::-1].tobytes()] = row, 1
    rows, flips = np.transpose([known[result.tobytes()] for result in found])
    assert abs(np.corrcoef(rows, flips)[0, 1]) < 0.15


def test_an_augmentation_without_its_crop():
    images = tf.constant(pictures())
    name = "random_resized_crop_flip"
    augmentation = Augmentation(name)
    cropped = augmentation.file_operation(images, operation_seed(seed_of(0), 0))
    np.testing.assert_array_equal(
        augmentation(cropped, seed_of(0), first=1), augmentation(images, seed_of(0))
    )


def test_none_changes_nothing():
    images = pictures()
    np.testing.assert_array_equal(
        Augmentation("none")(tf.constant(images), seed_of(0)), images
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_eagerly_and_inside_a_dataset(name):
    images = pictures(6, 16, 16)
    eager = [
        Augmentation(name)(tf.constant(images), seed_of(number)).numpy()
        for number in range(3)
    ]
    dataset = tf.data.Dataset.range(3, output_type=tf.int32).map(
        lambda number: Augmentation(name)(tf.constant(images), tf.stack([number, 1])),
        num_parallel_calls=2,
    )
    for wanted, found in zip(eager, dataset, strict=True):
        assert found.dtype == tf.uint8
        np.testing.assert_array_equal(found, wanted)
    if name != "none":
        assert (eager[0] != eager[1]).any()


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_fulfils_the_protocol(name):
    """Its arguments are those of the table, and what it does follows from its draws."""
    arguments = OPERATIONS[name].values()
    values = [3 if a.kind is int else (a.default or 0.5) for a in arguments]
    operation = KINDS[name](*values)
    assert isinstance(operation, Operation)
    images = tf.constant(pictures(4, 12, 9))
    drawn = operation.draw(seed_of(0), 4)
    found = operation.apply(images, drawn, IMAGENET)
    assert found.dtype == images.dtype
    assert tuple(found.shape[1:3]) == tuple(operation.result_size((12, 9)))
    np.testing.assert_array_equal(found, operation(images, seed_of(0)))
    matrix = operation.matrix(drawn, (12, 9), operation.result_size((12, 9)))
    assert (matrix is None) == (name in ("erase", "grid_mask", "colour"))
    assert matrix is None or matrix.shape == (4, 3, 3)


def test_what_lacks_a_method_is_no_operation():
    assert not isinstance(object(), Operation)
    assert not isinstance(lambda images, seed: images, Operation)


def test_named_augmentations_give_the_pixels_that_they_always_gave():
    """Arrays of the first version, so that old runs resume exactly."""
    images = np.random.default_rng(5).integers(1, 256, (4, 12, 10, 3)).astype("uint8")
    with np.load(Path(__file__).with_name("augmentations.npz")) as wanted:
        assert set(wanted) == set(AUGMENTATIONS)
        for name, pixels in wanted.items():
            found = Augmentation(name)(tf.constant(images), tf.constant([3, 1]))
            np.testing.assert_array_equal(found, pixels, err_msg=name)


def test_a_composition_is_its_operations_one_after_the_other():
    images = tf.constant(pictures(6, 16, 16))
    found = Augmentation("translate_flip|erase(0.2)")(images, seed_of(2))
    wanted = Augmentation("translate_flip_erase")(images, seed_of(2))
    np.testing.assert_array_equal(found, wanted)


def test_why_these_are_not_layers_of_keras():
    """The claims of docs/augmentation.md; if it fails, Keras has improved."""
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
