"""Patches against known boxes, counted pixel by pixel."""

import numpy as np
import pytest

from keras_attn.training.experiments.studies._rankings import Selection
from keras_attn.training.experiments.studies.object_hits import (
    object_hits,
    parts_covered,
    patch_pixels,
)

SIZE = 24


@pytest.fixture
def scene():
    """Three images with random boxes, some without, and random objects."""
    random = np.random.default_rng(0)
    corners = random.integers(0, SIZE - 10, (3, 4, 2))
    boxes = np.concatenate([corners, corners + 10], axis=-1)
    boxes[0, 3] = boxes[1, 2:] = -1
    selection = Selection(boxes, np.full(3, 10))
    masks = random.random((3, SIZE, SIZE)) < 0.3
    top_left = random.integers(0, 8, (3, 2))
    objects = np.concatenate([top_left, top_left + 13], axis=-1)
    parts = np.array([[[2, 3, 9, 8], [10, 10, 12, 20]], [[0, 0, 5, 5], [-1] * 4]] * 2)
    return selection, {"mask": masks, "box": objects, "part_boxes": parts[:3]}


def pixels_of(box):
    y0, x0, y1, x1 = box
    return {(y, x) for y in range(y0, y1) for x in range(x0, x1)}


def test_equals_counting_sets_of_pixels(scene):
    selection, truth = scene
    centres, shares, covered, parts, area = [], [], [], [], []
    for boxes, mask, target, part_boxes in zip(
        selection.boxes, truth["mask"], truth["box"], truth["part_boxes"], strict=True
    ):
        shown = {tuple(pixel) for pixel in np.argwhere(mask)}
        union = set()
        for box in boxes[boxes[:, 0] >= 0]:
            pixels = pixels_of(box)
            union |= pixels
            shares.append(len(pixels & shown) / len(pixels))
            y, x = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            centres.append(target[0] <= y < target[2] and target[1] <= x < target[3])
        covered.append(len(union & shown) / len(shown))
        area.append(len(union) / SIZE**2)
        for box in part_boxes[part_boxes[:, 0] >= 0]:
            parts.append(len(union & pixels_of(box)) / len(pixels_of(box)))
    found = object_hits(selection, truth)
    wanted = {
        "patch_centres_on_object": 100 * np.mean(centres),
        "patch_pixels_on_object": 100 * np.mean(shares),
        "object_covered": 100 * np.mean(covered),
        "parts_covered": 100 * np.mean(parts),
        "image_covered": 100 * np.mean(area),
        "patches_per_image": 3.0,
    }
    assert found == pytest.approx(wanted)


def test_everything_is_covered_by_the_whole_image():
    mask = np.zeros((1, SIZE, SIZE), bool)
    mask[0, 3:9, 4:20] = True
    whole = Selection(np.array([[[0, 0, SIZE, SIZE]]]), np.array([SIZE]))
    found = object_hits(
        whole,
        {
            "mask": mask,
            "box": np.array([[3, 4, 9, 20]]),
            "part_boxes": np.array([[[3, 4, 5, 6]]]),
        },
    )
    assert found["object_covered"] == found["parts_covered"] == 100.0
    assert found["patch_pixels_on_object"] == pytest.approx(100 * mask.mean())


def test_pixels_and_parts_of_nothing():
    mask = np.zeros((SIZE, SIZE), bool)
    assert patch_pixels(mask, np.array([[0, 0, 5, 5]])) == [0.0]
    union = np.zeros((1, SIZE, SIZE), bool)
    assert parts_covered(np.array([[[0, 0, 5, 5]]]), union) == 0.0
