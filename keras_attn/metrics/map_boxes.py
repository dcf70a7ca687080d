"""Measures of a map against the known box of an object.

Convention: boxes are (y0, x0, y1, x1), half-open pixels of the map, from the outer
corner of its top left pixel; -1 where absent.
"""

import numpy as np


def pointing_game(maps, boxes, tolerance: float = 0):
    """Hits of the pointing game: the highest point of a map lies in a box.

    Zhang et al., "Top-down Neural Attention by Excitation Backprop", section 4.1. The
    mean over images is the game's accuracy; the authors' tolerance is 15 pixels.

    Args:
        maps: `(N, height, width)`.
        boxes: `(N, 4)`, or `(N, M, 4)` for several objects in an image.
        tolerance: Pixels beside a box that count as inside.

    Returns:
        Booleans `(N,)`. A constant map, which points nowhere, is a miss; of several
        highest points the upper left counts.

    Raises:
        ValueError: If shapes do not fit, or an image has no box.

    Example:

    >>> maps = np.zeros((2, 4, 6))
    >>> maps[:, 1, 2] = 1.0
    >>> pointing_game(maps, [[0, 0, 2, 3], [2, 0, 4, 6]])
    array([ True, False])

    Reference: [zhang2016] arXiv:1608.00507, section 4.1.
    """
    maps, boxes = _checked(maps, boxes)
    flat = maps.reshape(len(maps), -1)
    rows, columns = np.divmod(flat.argmax(axis=1), maps.shape[2])
    y0, x0, y1, x1 = np.moveaxis(boxes, -1, 0)
    y, x = rows[:, None], columns[:, None]
    inside = (y0 - tolerance <= y) & (y < y1 + tolerance)
    inside &= (x0 - tolerance <= x) & (x < x1 + tolerance) & (y0 >= 0)
    return inside.any(axis=1) & (flat.max(axis=1) > flat.min(axis=1))


def energy_inside_box(maps, boxes):
    """Share of a map that lies in the boxes of the object.

    Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural
    Networks", section 4.3: the sum inside over the sum of all.

    Args:
        maps: `(N, height, width)`, not negative.
        boxes: `(N, 4)`, or `(N, M, 4)` for several objects in an image; where they
            overlap a pixel counts once.

    Returns:
        float64 array `(N,)` in 0..1; 0 for a map that is zero. To compare with: a
        constant map has the boxes' share of the image.

    Raises:
        ValueError: If shapes do not fit, an image has no box, or a value is negative.

    Example:

    >>> energy_inside_box(np.ones((1, 4, 6)), [[0, 0, 2, 3]])
    array([0.25])

    Reference: [wang2019] arXiv:1910.01279, section 4.3.
    """
    maps, boxes = _checked(maps, boxes)
    if maps.min() < 0:
        raise ValueError(
            f"Expected maps that are not negative. Received: {maps.min()} among them"
        )
    y, x = np.arange(maps.shape[1])[:, None], np.arange(maps.shape[2])
    y0, x0, y1, x1 = np.moveaxis(boxes, -1, 0)[..., None, None]
    inside = (y0 <= y) & (y < y1) & (x0 <= x) & (x < x1) & (y0 >= 0)
    energy = np.sum(maps * inside.any(axis=1), axis=(1, 2))
    total = maps.sum(axis=(1, 2))
    return np.divide(energy, total, out=np.zeros(len(maps)), where=total > 0)


def _checked(maps, boxes):
    maps, boxes = np.asarray(maps, "float64"), np.asarray(boxes)
    boxes = boxes[:, None] if boxes.ndim == 2 else boxes
    if (
        maps.ndim != 3
        or not maps.size
        or boxes.shape != (len(maps), *boxes.shape[1:2], 4)
    ):
        raise ValueError(
            "Expected maps (N, height, width) and boxes (N, 4) or (N, M, 4). "
            f"Received: shapes {maps.shape} and {boxes.shape}"
        )
    if not np.isfinite(maps).all():
        raise ValueError("Expected finite maps. Received: NaN or infinite values")
    absent = np.flatnonzero((boxes[..., 0] < 0).all(axis=1))
    if len(absent):
        raise ValueError(
            "Expected a box for every image. "
            f"Received: {len(absent)} images without one, the first is {absent[0]}"
        )
    return maps, boxes
