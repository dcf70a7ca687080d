"""Sampled transforms: what they show, and that boxes stay on what they hold."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy import ndimage

from keras_attn.pipelines.augment import geometry
from keras_attn.pipelines.augment.composition import AUGMENTATIONS
from keras_attn.pipelines.augment.crops import RandomAffine
from keras_attn.pipelines.augment.operations import Augmentation

# What the composition below ends with.
SIZE = (37, 53)
AFFINE = RandomAffine(15.0, 0.875, mirror=0.5)
NAMES = [
    name
    for name in (*AUGMENTATIONS, "translate|flip|resize(41, 60)|random_crop(37, 53)")
    if not any(word in name for word in ("grid_mask", "erase", "mild"))
]


def seed_of(number):
    return tf.constant([number, 7], tf.int32)


def rectangles(count, size, random):
    """White rectangles on black, and their boxes."""
    corners = random.integers(0, np.array(size) * 2 // 3, (count, 2))
    sides = random.integers(3, np.array(size) // 3, (count, 2))
    boxes = np.concatenate([corners, np.minimum(corners + sides, size)], axis=-1)
    images = np.zeros((count, *size, 3), "uint8")
    for image, (y0, x0, y1, x1) in zip(images, boxes, strict=True):
        image[y0:y1, x0:x1] = 255
    return images, boxes.astype("int32")


def tight_box(image):
    """Of what is brighter than a quarter: the corners of turned boxes are dim."""
    rows, columns = np.nonzero(image[..., 0] > 64)
    if not len(rows):
        return -np.ones(4, int)
    return np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])


def assert_aligned(images, boxes):
    """The boxes are the tight ones of what is white; cut off ones hold it."""
    size = images.shape[1:3]
    whole = 0
    for image, box in zip(images, boxes, strict=True):
        found = tight_box(image)
        if (found == -1).all() or (box == -1).all():
            seen = found if (box == -1).all() else box
            assert min(seen[2] - seen[0], seen[3] - seen[1]) <= 1
        elif (box[:2] > 0).all() and (box[2:] < size).all():
            assert np.abs(found - box).max() <= 1, (found, box)
            whole += 1
        else:
            assert (found[:2] >= box[:2] - 1).all() and (found[2:] <= box[2:] + 1).all()
    assert whole >= len(images) / 4


@pytest.mark.parametrize("name", NAMES)
def test_boxes_stay_on_what_they_hold(name):
    images, boxes = rectangles(60, SIZE, np.random.default_rng(0))
    found = Augmentation(name)(tf.constant(images), seed_of(1)).numpy()
    transforms = Augmentation(name).transforms(seed_of(1), 60, SIZE)
    moved = geometry.transform_boxes(boxes, transforms, SIZE).numpy()
    assert moved.dtype == np.int32 and moved.shape == boxes.shape
    assert_aligned(found, moved)
    if name != "none":
        # With the transforms of another batch they do not.
        others = Augmentation(name).transforms(seed_of(2), 60, SIZE)
        with pytest.raises(AssertionError):
            moved = geometry.transform_boxes(boxes, others, SIZE).numpy()
            assert_aligned(found, moved)


@pytest.mark.parametrize("size", [(90, 140), (31, 23), (64, 60)])
def test_boxes_stay_on_what_they_hold_in_files_of_any_size(size):
    images, boxes = rectangles(40, size, np.random.default_rng(1))
    draws = AFFINE.draw(seed_of(0), 40)
    show = tf.function(lambda image, drawn: AFFINE.of_image(image, drawn, (40, 56)))
    found = np.array([show(*pair) for pair in zip(images, draws, strict=True)])
    assert found.dtype == np.uint8 and found.shape == (40, 40, 56, 3)
    transforms = AFFINE.matrix(draws, size, (40, 56))
    moved = geometry.transform_boxes(boxes, transforms, (40, 56)).numpy()
    assert_aligned(found, moved)


@pytest.mark.parametrize("name", NAMES)
def test_maps_are_transformed_as_images_are(name):
    """Slopes, which filters leave as they are but at the borders."""
    name = name.replace("37, 53", "32, 40")
    rows, columns = np.mgrid[:32, :40]
    image = np.stack([50 + 4 * rows, 60 + 3 * columns, 200 - 2 * rows], axis=-1)
    images = np.repeat(image[None], 8, axis=0).astype("uint8")
    wanted = Augmentation(name)(tf.constant(images), seed_of(3)).numpy()
    transforms = Augmentation(name).transforms(seed_of(3), 8, (32, 40))
    found = geometry.transform_images(images, transforms, (32, 40)).numpy()
    assert found.dtype == np.uint8
    difference = np.abs(found.astype(int) - wanted)
    if "resize" in name:
        assert np.median(difference) <= 1 and (difference <= 4).mean() > 0.9
    else:
        assert difference.max() == 0
    # A map with a cell for 4x4 pixels.
    maps = images.reshape(8, 8, 4, 10, 4, 3).mean((2, 4)).astype("float32")
    coarse = geometry.rescale(transforms, (0.25, 0.25), (0.25, 0.25))
    found = geometry.transform_images(maps, coarse, (8, 10)).numpy()
    wanted = wanted.reshape(8, 8, 4, 10, 4, 3).mean((2, 4))
    assert np.median(np.abs(found - wanted)) < 1


@pytest.mark.parametrize(("interpolation", "order"), [("bilinear", 1), ("nearest", 0)])
def test_pixels_equal_those_of_scipy(interpolation, order):
    random = np.random.default_rng(2)
    images = random.normal(size=(5, 13, 19, 2)).astype("float32")
    transforms = AFFINE.matrix(AFFINE.draw(seed_of(4), 5), (13, 19), (11, 17))
    found = geometry.transform_images(images, transforms, (11, 17), interpolation, 0.5)
    places = np.stack([*np.mgrid[:11, :17] + 0.5, np.ones((11, 17))])
    for image, transform, result in zip(images, transforms, found, strict=True):
        where = np.einsum("ij,jyx->iyx", np.array(transform, "float64"), places)
        for channel in range(2):
            wanted = ndimage.map_coordinates(
                image[..., channel],
                where[:2] - 0.5,
                order=order,
                mode="grid-constant",
                cval=0.5,
            )
            np.testing.assert_allclose(result[..., channel], wanted, atol=1e-4)


def test_points_are_where_their_image_shows_them():
    rows, columns = np.mgrid[:60, :80] + 0.5
    points = np.random.default_rng(3).uniform(20, 40, (6, 2))
    images = [np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 8) for y, x in points]
    transforms = AFFINE.matrix(AFFINE.draw(seed_of(5), 6), (60, 80), (45, 60))
    images = np.array(images, "float32")[..., None]
    found = geometry.transform_images(images, transforms, (45, 60)).numpy()[..., 0]
    moved = geometry.transform_points(points[:, None], transforms, (45, 60)).numpy()
    rows, columns = np.mgrid[:45, :60] + 0.5
    for image, point in zip(found, moved[:, 0], strict=True):
        centre = (image * rows).sum(), (image * columns).sum()
        np.testing.assert_allclose(np.array(centre) / image.sum(), point, atol=0.05)


def test_no_angle_and_no_crop_change_nothing_but_the_side():
    images = np.random.default_rng(4).integers(0, 256, (40, 7, 11, 3)).astype("uint8")
    same = RandomAffine(0.0)(tf.constant(images), seed_of(0))
    np.testing.assert_array_equal(same, images)
    found = RandomAffine(0.0, mirror=0.5)(tf.constant(images), seed_of(0)).numpy()
    mirrored = (found == images[:, :, ::-1]).all((1, 2, 3))
    assert (mirrored ^ (found == images).all((1, 2, 3))).all()
    assert 8 <= mirrored.sum() <= 32


def test_files_are_reduced_with_antialiasing_as_pillow_does():
    image = np.random.default_rng(4).integers(0, 256, (39, 60, 3)).astype("uint8")
    draws = tf.constant([0.5] * 4)
    found = RandomAffine(0.0).of_image(tf.constant(image), draws, (13, 20)).numpy()
    wanted = Image.fromarray(image).resize((20, 13), Image.Resampling.BILINEAR)
    assert np.abs(found.astype(int) - np.asarray(wanted)).max() <= 1


def test_crops_lie_inside_and_everywhere():
    crop = RandomAffine(0.0, 0.5)
    transforms = crop.matrix(crop.draw(seed_of(0), 2000), (30, 50), (10, 10))
    corners = np.array(transforms) @ np.array([[0, 0, 1], [10, 10, 1]]).T
    first, last = corners[:, :2, 0], corners[:, :2, 1]
    # Half of the largest square.
    np.testing.assert_allclose(last - first, 15, rtol=1e-5)
    assert (first >= 0).all() and (last <= (30.001, 50.001)).all()
    for places, space in zip(first.T, (15, 35), strict=True):
        # Kolmogorov-Smirnov: exceeded by chance once in a thousand times.
        ranks = (np.arange(2000) + 0.5) / 2000
        assert np.abs(np.sort(places) / space - ranks).max() < 1.95 / np.sqrt(2000)


def test_angles_are_uniform_and_rotations_have_no_shear():
    transforms = AFFINE.matrix(AFFINE.draw(seed_of(0), 2000), (8, 8), (8, 8))
    linear = np.array(transforms)[:, :2, :2] / 0.875
    eye = np.broadcast_to(np.eye(2), linear.shape)
    np.testing.assert_allclose(linear @ linear.transpose(0, 2, 1), eye, atol=1e-5)
    angles = np.degrees(np.arctan2(linear[:, 1, 0], linear[:, 0, 0]))
    ranks = (np.arange(2000) + 0.5) / 2000
    assert np.abs(np.sort(angles) / 30 + 0.5 - ranks).max() < 1.95 / np.sqrt(2000)
    mirrored = np.linalg.det(linear) < 0
    assert 900 < mirrored.sum() < 1100
    assert abs(np.corrcoef(angles, mirrored)[0, 1]) < 0.1


def test_absent_and_lost_boxes_and_points_are_minus_one():
    left = geometry.affine(tf.eye(2, batch_shape=(2,)), tf.constant([[0.0, 6.0]] * 2))
    boxes = [[[1, 2, 4, 9], [1, 0, 4, 6], [-1, -1, -1, -1]]] * 2
    found = geometry.transform_boxes(boxes, left, (10, 10))
    np.testing.assert_array_equal(found[1], [[1, 0, 4, 3], [-1] * 4, [-1] * 4])
    points = [[[5.0, 8.5], [5.0, 3.0], [-1.0, -1.0]]] * 2
    found = geometry.transform_points(points, left, (10, 10))
    np.testing.assert_array_equal(found[0], [[5, 2.5], [-1, -1], [-1, -1]])
    ints = np.array(points).astype("int64")
    np.testing.assert_array_equal(
        geometry.transform_points(ints, left, (10, 10))[0, 0], [5, 2]
    )


@pytest.mark.parametrize(("interpolation", "order"), [("bilinear", 1), ("nearest", 0)])
@pytest.mark.parametrize("turned", [True, False])
def test_maps_reach_up_to_their_edges(interpolation, order, turned):
    random = np.random.default_rng(6)
    maps = random.normal(size=(6, 5, 7, 2)).astype("float32")
    linear = random.uniform(-0.5, 0.5, (6, 2, 2)).astype("float32")
    if not turned:
        linear[:, 0, 1] = linear[:, 1, 0] = 0
    offset = random.uniform(0, 5, (6, 2)).astype("float32")
    transforms = geometry.affine(tf.constant(linear), tf.constant(offset))
    places = np.stack([*np.mgrid[:11, :13] + 0.5, np.ones((11, 13))])
    shown = 0
    for flag in {True, turned}:
        found = geometry.transform_maps(
            maps, transforms, (11, 13), interpolation, -0.5, flag
        )
        for one, transform, result in zip(maps, transforms, found, strict=True):
            where = np.einsum("ij,jyx->iyx", np.array(transform, "float64"), places)
            inside = (where[:2] >= 0).all(0) & (where[0] < 5) & (where[1] < 7)
            shown += inside.sum()
            for channel in range(2):
                wanted = ndimage.map_coordinates(
                    one[..., channel], where[:2] - 0.5, order=order, mode="nearest"
                )
                wanted = np.where(inside, wanted, -0.5)
                np.testing.assert_allclose(result[..., channel], wanted, atol=1e-4)
    assert 0.2 < shown / (11 * 13 * 6 * len({True, turned})) < 0.9
