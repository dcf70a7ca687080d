"""Crops of images: where they are, and that they show what is there."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_attn.pipelines.augment.crops import (
    ATTEMPTS,
    RandomCrop,
    RandomResizedCrop,
    Resize,
)


def pictures(count=5, height=11, width=7, seed=0):
    shape = (count, height, width, 3)
    return np.random.default_rng(seed).integers(1, 256, shape).astype("uint8")


def seed_of(number):
    return tf.constant([number, 1], tf.int32)


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
    crop = RandomResizedCrop(0.08)
    draws = crop.draw(seed_of(0), 300)
    boxes = crop.boxes(draws, (height, width)).numpy()
    wanted = [slow_box(drawn, height, width, 0.08) for drawn in draws.numpy()]
    # A product that float32 rounds to the other side of a half.
    assert (boxes == wanted).all(-1).mean() > 0.98
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= (height, width)).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    # Every border is reached.
    assert (boxes.min(0)[:2] == 0).all() and (boxes.max(0)[2:] == (height, width)).all()


def test_crop_boxes_are_distributed_as_defined():
    crop = RandomResizedCrop(0.08)
    boxes = crop.boxes(crop.draw(seed_of(0), 2000), (1000, 1000))
    boxes = np.array(boxes, "float64")
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
    crop = RandomResizedCrop(0.08)
    for draws in crop.draw(seed_of(1), 40):
        y0, x0, y1, x1 = crop.boxes(draws[None], (45, 61)).numpy()[0]
        part = Image.fromarray(image[y0:y1, x0:x1])
        # Pillow's bilinear filter widens with the reduction too.
        wanted = np.asarray(part.resize((17, 23), Image.Resampling.BILINEAR), int)
        found = crop.of_image(tf.constant(image), draws, (23, 17)).numpy()
        assert found.dtype == np.uint8 and found.shape == (23, 17, 3)
        assert np.abs(found.astype(int) - wanted).max() <= 1


def test_crops_of_a_batch_are_those_of_its_images():
    images = pictures(6, 19, 13)
    crop = RandomResizedCrop(0.5)
    found = crop(tf.constant(images), seed_of(2)).numpy()
    draws = crop.draw(seed_of(2), 6)
    for image, drawn, result in zip(images, draws, found, strict=True):
        alone = crop.of_image(tf.constant(image), drawn, (19, 13))
        np.testing.assert_array_equal(result, alone)
    assert len({box.numpy().tobytes() for box in draws}) == 6


def test_the_whole_image_as_a_crop_is_the_image():
    image = pictures(1, 12, 12)[0]
    crop = RandomResizedCrop(1.0)
    draws = tf.fill((ATTEMPTS, 4), 0.5)
    np.testing.assert_array_equal(crop.boxes(draws[None], (12, 12)), [(0, 0, 12, 12)])
    np.testing.assert_array_equal(crop.of_image(image, draws, (12, 12)), image)


def test_a_resized_image_is_what_pillow_shows_of_its_middle():
    image = pictures(1, 45, 61)[0]
    resize = Resize(20, 10)
    np.testing.assert_array_equal(resize.box((45, 61)), (0, 19, 45, 41))
    wanted = Image.fromarray(image[:, 19:41]).resize((10, 20), Image.BILINEAR)
    found = resize.of_image(tf.constant(image), resize.draw(seed_of(0), 1), (20, 10))
    assert np.abs(found.numpy().astype(int) - np.asarray(wanted)).max() <= 1
    np.testing.assert_array_equal(resize(image[None], seed_of(0))[0], found)


def test_random_crops_lie_everywhere_and_show_their_boxes():
    images = np.repeat(pictures(1, 7, 6), 400, axis=0)
    crop = RandomCrop(4, 5)
    corners = crop.corners(crop.draw(seed_of(0), 400), (7, 6)).numpy()
    assert {tuple(corner) for corner in corners} == set(np.ndindex(4, 2))
    found = crop(tf.constant(images), seed_of(0)).numpy()
    for image, (y, x), result in zip(images, corners, found, strict=True):
        np.testing.assert_array_equal(result, image[y : y + 4, x : x + 5])
