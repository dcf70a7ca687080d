"""Boxes follow the pixels."""

import numpy as np
import pytest

from keras_attn.pipelines.images.boxes import (
    SLACK,
    boxes_in_frame,
    cut_at_border,
    filled,
    pixel_boxes,
)
from keras_attn.preprocessing import ImagePreprocessing, ImageSpec


def test_edges_and_pixels_counted_from_one():
    # A box of the pixels 3 to 5 of MATLAB, and the same by its edges.
    assert pixel_boxes([3, 3, 5, 5], first=1).tolist() == [2, 2, 5, 5]
    assert pixel_boxes([2, 2, 5, 5]).tolist() == [2, 2, 5, 5]
    assert pixel_boxes([7, 7, 7, 7], first=1).tolist() == [6, 6, 7, 7]
    found = pixel_boxes([[20.6, 10.4, 30.6, 52.0], [1.2, 1.2, 1.4, 9]])
    assert found.tolist() == [[21, 10, 31, 52], [1, 1, 2, 9]]
    assert found.dtype == np.int32 and pixel_boxes(np.zeros((0, 4))).shape == (0, 4)


def test_rounding_is_cut_off_and_more_is_outside():
    sizes = np.array([[30, 40]] * 7)
    boxes = [
        [0, 0, 30, 40],
        [-SLACK, 0, 30 + SLACK, 40],
        [-SLACK - 1, 0, 30, 40],
        [0, 0, 30, 40 + SLACK + 1],
        [-1, -1, -1, -1],
        [30, 0, 31, 40],
        [5, 6, 5, 9],
    ]
    cut, outside = cut_at_border(boxes, sizes)
    assert outside.tolist() == [False, False, True, True, False, True, True]
    assert cut[1].tolist() == [0, 0, 30, 40] and cut[4].tolist() == [-1] * 4
    assert cut.dtype == np.int32
    # Below the image there is a banner, to which a box may reach; not beside it.
    cut, outside = cut_at_border([[5, 5, 50, 40], [5, 5, 20, 60]], sizes[:2], 20)
    assert outside.tolist() == [False, True] and cut[0].tolist() == [5, 5, 30, 40]


def test_known_frames():
    spec = ImageSpec(60, 60)
    # 120 x 200: the middle 120 columns, from 40 on, at half the size.
    boxes = [[40, 30, 80, 90], [0, 40, 120, 160], [0, 0, 120, 40], [8, 39, 9, 41]]
    assert boxes_in_frame(boxes, (120, 200), spec).tolist() == [
        [20, 0, 40, 25],
        [0, 0, 60, 60],
        [-1, -1, -1, -1],
        [4, 0, 5, 1],
    ]
    # Resized to 75, of which the middle 60 begin at 7; no crop to the aspect ratio.
    boxes = boxes_in_frame([[30, 50, 40, 60]], (150, 150), ImageSpec(60, 60, **CROP))
    assert boxes.tolist() == [[8, 18, 13, 23]]
    # An image of the network's size is neither resized nor cropped.
    boxes = boxes_in_frame([[0, 0, 60, 60]], (60, 60), ImageSpec(60, 60, **CROP))
    assert boxes.tolist() == [[0, 0, 60, 60]]
    assert boxes_in_frame([-1] * 4, (120, 200), spec).tolist() == [-1] * 4


CROP = {"crop_fraction": 0.8}


@pytest.mark.parametrize("fraction", [1.0, 0.875])
@pytest.mark.parametrize("size", [(61, 97), (97, 61), (24, 31), (240, 130), (40, 56)])
def test_boxes_are_where_the_pixels_went(size, fraction):
    """A bright rectangle, fitted as a network's images are, is where its box says."""
    spec = ImageSpec(40, 56, crop_fraction=fraction)
    fit = ImagePreprocessing(spec).fit_size
    height, width = size
    random = np.random.default_rng(height)
    images, boxes = np.zeros((4, *size, 3), "uint8"), []
    for image in images:
        y, x = random.integers(0, (height // 2, width // 2))
        y1, x1 = y + height // 3, x + width // 3
        image[y:y1, x:x1] = 255
        boxes.append([y, x, y1, x1])
    sizes = np.full((4, 2), size)
    fitted = np.asarray(fit(images))[..., 0] > 127
    for box, bright in zip(boxes_in_frame(boxes, sizes, spec), fitted, strict=True):
        rows, columns = (np.flatnonzero(bright.any(axis)) for axis in (1, 0))
        seen = [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]
        # A pixel for rounding, where half a pixel is dark.
        assert abs(box - seen).max() <= 1


def test_filled_boxes():
    boxes = np.array([[1, 2, 3, 7], [0, 0, 0, 5], [-1, -1, -1, -1]])
    wanted = np.zeros((3, 5, 8), bool)
    wanted[0, 1:3, 2:7] = True
    np.testing.assert_array_equal(filled(boxes, 5, 8), wanted)
