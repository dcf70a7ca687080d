"""Augmentation: what it does to pixels, and that the seed alone decides it."""

import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_attn.pipelines.augment import operations

NAMES = tuple(operations.AUGMENTATIONS)


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
    found = operations.translate(tf.constant(images), tf.constant(offsets)).numpy()
    for image, result, (row, column) in zip(images, found, offsets, strict=True):
        np.testing.assert_array_equal(result, slow_translate(image, row, column))


def test_random_translate_draws_every_offset_for_each_image_alone():
    images = pictures(1, 9, 9)
    batch = np.repeat(images, 2000, axis=0)
    found = operations.random_translate(tf.constant(batch), seed_of(0)).numpy()
    assert found.dtype == np.uint8 and found.shape == batch.shape
    offsets = [
        (row, column)
        for row in range(-operations.PADDING, operations.PADDING + 1)
        for column in range(-operations.PADDING, operations.PADDING + 1)
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
    found = operations.random_flip(tf.constant(images), seed_of(0)).numpy()
    mirrored = (found == images[:, :, ::-1]).all((1, 2, 3))
    same = (found == images).all((1, 2, 3))
    assert (mirrored ^ same).all()
    assert 430 < mirrored.sum() < 570
    again = operations.random_flip(tf.constant(images), seed_of(1)).numpy()
    assert (again != found).any((1, 2, 3)).sum() > 400


def test_translation_and_flip_are_drawn_independently():
    images = np.repeat(pictures(1, 9, 9), 500, axis=0)
    found = operations.augment(
        tf.constant(images), seed_of(0), "translate_flip"
    ).numpy()
    # The first rows of zeros tell the row offset, the mirroring tells the flip.
    known = {}
    for row in range(-4, 5):
        for column in range(-4, 5):
            moved = slow_translate(images[0], row, column)
            known[moved.tobytes()] = row, 0
            known[moved[:, ::-1].tobytes()] = row, 1
    rows, flips = np.transpose([known[result.tobytes()] for result in found])
    assert abs(np.corrcoef(rows, flips)[0, 1]) < 0.15


def slow_box(draws, height, width, smallest):
    """The definition, one attempt after the other."""
    for share, shape, row, column in draws.astype("float64"):
        area = height * width * (smallest + (1 - smallest) * share)
        aspect = np.exp(np.log(3 / 4) + np.log(16 / 9) * shape)
        h, w = round(np.sqrt(area / aspect)), round(np.sqrt(area * aspect))
        if 1 <= h <= height and 1 <= w <= width:
            y, x = int(row * (height - h + 1)), int(column * (width - w + 1))
            return y, x, y + h, x + w
    w = round(height * 4 / 3) if width / height > 4 / 3 else width
    h = round(width * 4 / 3) if width / height < 3 / 4 else height
    y, x = (height - h) // 2, (width - w) // 2
    return y, x, y + h, x + w


@pytest.mark.parametrize(("height", "width"), [(37, 53), (8, 40), (40, 7), (1, 1)])
def test_crop_boxes_equal_their_definition_and_are_inside(height, width):
    crop = operations.RandomResizedCrop(0.08)
    draws = crop.draws(seed_of(0), 300)
    find = tf.function(lambda drawn: crop.box(drawn, height, width))
    boxes = np.array([find(drawn) for drawn in draws])
    wanted = [slow_box(drawn, height, width, 0.08) for drawn in draws.numpy()]
    # A product that float32 rounds to the other side of a half.
    assert (boxes == wanted).all(-1).mean() > 0.98
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= (height, width)).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    # Every border is reached.
    assert (boxes.min(0)[:2] == 0).all() and (boxes.max(0)[2:] == (height, width)).all()


def test_crop_boxes_are_distributed_as_defined():
    crop = operations.RandomResizedCrop(0.08)
    find = tf.function(lambda drawn: crop.box(drawn, 1000, 1000))
    draws = crop.draws(seed_of(0), 2000)
    boxes = np.array([find(drawn) for drawn in draws], "float64")
    heights, widths = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    shares, shapes = heights * widths / 1e6, np.log(widths / heights)
    assert shares.min() > 0.079 and np.abs(shapes).max() < np.log(4 / 3) + 0.01
    # Boxes up to 3/4 of the area always fit, so below it the area is uniform.
    small = np.sort(shares[shares < 0.74])
    uniform = (small - 0.08) / (0.74 - 0.08)
    ranks = (np.arange(len(small)) + 0.5) / len(small)
    # Kolmogorov-Smirnov: exceeded by chance once in a thousand times.
    limit = 1.95 / np.sqrt(len(small))
    assert len(small) > 1300 and np.abs(uniform - ranks).max() < limit
    shapes = np.sort(shapes[shares < 0.74]) / np.log(16 / 9) + 0.5
    assert np.abs(shapes - ranks).max() < limit
    places = np.sort(boxes[:, 0] / (1000 - heights + 1))
    ranks = (np.arange(2000) + 0.5) / 2000
    assert np.abs(places - ranks).max() < 1.95 / np.sqrt(2000)
    # Independent of one another.
    table = np.stack([boxes[:, 0] / (1001 - heights), boxes[:, 1] / (1001 - widths)])
    assert np.abs(np.corrcoef([*table, heights * widths]) - np.eye(3)).max() < 0.1


def test_a_crop_shows_what_pillow_shows_of_its_box():
    image = pictures(1, 45, 61)[0]
    crop = operations.RandomResizedCrop(0.08)
    for draws in crop.draws(seed_of(1), 40):
        y0, x0, y1, x1 = (int(edge) for edge in crop.box(draws, 45, 61))
        part = Image.fromarray(image[y0:y1, x0:x1])
        # Pillow's bilinear filter widens with the reduction too.
        wanted = np.asarray(part.resize((17, 23), Image.Resampling.BILINEAR), int)
        found = crop.of_image(tf.constant(image), draws, (23, 17)).numpy()
        assert found.dtype == np.uint8 and found.shape == (23, 17, 3)
        assert np.abs(found.astype(int) - wanted).max() <= 1


def test_crops_of_a_batch_are_those_of_its_images():
    images = pictures(6, 19, 13)
    crop = operations.RandomResizedCrop(0.5)
    found = crop(tf.constant(images), seed_of(2)).numpy()
    draws = crop.draws(seed_of(2), 6)
    for image, drawn, result in zip(images, draws, found, strict=True):
        alone = crop.of_image(tf.constant(image), drawn, (19, 13))
        np.testing.assert_array_equal(result, alone)
    assert len({box.numpy().tobytes() for box in draws}) == 6


def test_the_whole_image_as_a_crop_is_the_image():
    image = pictures(1, 12, 12)[0]
    crop = operations.RandomResizedCrop(1.0)
    draws = tf.fill((operations.CROP_ATTEMPTS, 4), 0.5)
    np.testing.assert_array_equal(crop.box(draws, 12, 12), (0, 0, 12, 12))
    np.testing.assert_array_equal(crop.of_image(image, draws, (12, 12)), image)


def test_an_augmentation_without_its_crop():
    images = tf.constant(pictures())
    name = "random_resized_crop_flip"
    crop = operations.resized_crop(name)
    cropped = crop(images, operations.operation_seed(seed_of(0), 0))
    np.testing.assert_array_equal(
        operations.augment(cropped, seed_of(0), name, crop=False),
        operations.augment(images, seed_of(0), name),
    )


def test_none_changes_nothing():
    images = pictures()
    np.testing.assert_array_equal(
        operations.augment(tf.constant(images), seed_of(0), "none"), images
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_eagerly_and_inside_a_dataset(name):
    require(name)
    images = pictures(6, 16, 16)
    eager = [
        operations.augment(tf.constant(images), seed_of(number), name).numpy()
        for number in range(3)
    ]
    dataset = tf.data.Dataset.range(3, output_type=tf.int32).map(
        lambda number: operations.augment(
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
    found = operations.random_grid_mask(tf.constant(images), seed_of(0)).numpy()
    masked = (found == 0).all(-1)
    np.testing.assert_array_equal(found[~masked], images[~masked])
    shares = masked.mean((1, 2))
    # Squares of ratio r in 0..0.5 cover about r**2: a twelfth on average.
    assert 0.03 < shares.mean() < 0.16 and shares.max() < 0.45
    assert len({mask.tobytes() for mask in masked if mask.any()}) > 25


def test_the_grid_mask_names_the_extra_that_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    with pytest.raises(ImportError, match=r"pip install 'keras-attn\[augment\]'"):
        operations.augment(
            tf.constant(pictures()), seed_of(0), "translate_flip_grid_mask"
        )


def test_an_unknown_name_is_an_error_that_names_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'translate_flip'"):
        operations.check_augmentation("translate_flipp")


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
