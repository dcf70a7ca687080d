"""Boxes: int32 `(y0, x0, y1, x1)`, half-open pixel coordinates of the image.

Convention: the origin is the outer corner of the top-left pixel, so that a box covers
the rows `y0` to `y1 - 1`. An absent box is all -1; it covers nothing. Where others give
the last pixel that is inside, such as the reference code of weakly supervised
localisation (Choe et al., 2020), add 1 to the ends: `iou` here then is what they
compute with `y1 - y0 + 1` and `x1 - x0 + 1`.
"""

import keras
from keras import ops

from keras_attn._checks import number_in


def iou(boxes, others):
    """Intersection over union of every box with every other one.

    Args:
        boxes: Tensor `(N, 4)` or `(batch, N, 4)` of any dtype.
        others: Tensor `(M, 4)` or `(batch, M, 4)`.

    Returns:
        float32 tensor `(N, M)` or `(batch, N, M)` in 0..1; 0 for absent boxes.

    Example:

    >>> iou(np.array([[0, 0, 4, 4]]), np.array([[0, 2, 4, 6], [-1, -1, -1, -1]]))
    [[0.33333334, 0.]]
    """
    boxes, others = ops.cast(boxes, "float32"), ops.cast(others, "float32")
    return keras.utils.bounding_boxes.compute_iou(boxes, others, "yxyx")


def heat_map_box(maps, threshold: float = 0.15):
    """The tight box of the largest region where a heat map is high.

    The rule of CAM and Grad-CAM: the map is cut at a share of its maximum, and the
    largest connected component of what lies above it is boxed. Pixels are connected
    to all eight around them, as in the contours of OpenCV that the reference code of
    weakly supervised localisation (Choe et al., 2020) draws. Unlike there, the size
    of a component is the number of its pixels, without its holes.

    Args:
        maps: Tensor `(..., height, width)` of any dtype; height and width are known.
        threshold: Pixels above `threshold * maximum` count, a number in [0, 1). The
            Grad-CAM paper has 0.15, the CAM paper 0.2.

    Returns:
        int32 tensor `(..., 4)` in pixels of the map. Among equally large components
        it is the one whose first pixel comes first, row by row. A map that is nowhere
        positive has an absent box.

    Raises:
        ValueError: If `threshold` is outside [0, 1) or the maps have no two axes.

    Example:

    >>> heat_map_box(np.array([[0.0, 0.1, 0.8, 0.0], [0.3, 0.0, 1.0, 0.9]]), 0.2)
    [0, 2, 2, 4]
    """
    number_in("threshold", threshold, "[0, 1)")
    maps = ops.cast(maps, "float32")
    if len(maps.shape) < 2:
        raise ValueError(
            "Expected maps of shape (..., height, width). "
            f"Received: maps of shape {tuple(maps.shape)}"
        )
    leading, (height, width) = ops.shape(maps)[:-2], maps.shape[-2:]
    maps = ops.reshape(maps, (-1, height, width))
    mask = maps > threshold * ops.max(maps, axis=(1, 2), keepdims=True)
    region = _largest_component(mask)
    rows, columns = ops.any(region, axis=2), ops.any(region, axis=1)
    y0, y1 = _extent(rows)
    x0, x1 = _extent(columns)
    boxes = ops.stack([y0, x0, y1, x1], axis=-1)
    boxes = ops.where(ops.any(rows, axis=1)[:, None], boxes, -1)
    return ops.reshape(boxes, (*leading, 4))


def _extent(inside):
    """First and one beyond the last true place of every row of `(N, places)`."""
    inside = ops.cast(inside, "int32")
    size = inside.shape[1]
    first = ops.cast(ops.argmax(inside, axis=1), "int32")
    beyond = size - ops.cast(ops.argmax(ops.flip(inside, axis=1), axis=1), "int32")
    return first, beyond


def _largest_component(mask):
    """Of every mask `(N, H, W)` the 8-connected component with the most pixels."""
    height, width = mask.shape[1:]
    labels = _components(mask)
    mask = ops.reshape(mask, (-1, height * width))
    segments, count = _segments(labels)
    sizes = ops.segment_sum(
        ops.cast(ops.reshape(mask, (-1,)), "float32"), segments, count
    )
    sizes = ops.reshape(ops.take(sizes, segments), ops.shape(labels))
    # Outside the mask every pixel is a segment of its own, of size 0.
    first = ops.argmax(sizes, axis=1)[:, None]
    chosen = mask & (labels == ops.take_along_axis(labels, first, axis=1))
    return ops.reshape(chosen, (-1, height, width))


def _components(mask):
    """The component of every pixel, named by the last one of its pixels.

    Every pixel points at one of its own component, at first at itself. Pixels and
    those that they point at take over the last pixel that a neighbour points at, and
    then point where that one does. The number of rounds is about the logarithm of
    the length of a component, instead of its length.

    Args:
        mask: bool `(N, H, W)`.

    Returns:
        int32 `(N, H * W)`; pixels outside the mask keep to themselves.
    """
    count, height, width = ops.shape(mask)
    pixels = ops.arange(height * width, dtype="int32")
    start = ops.zeros((count, 1), "int32") + pixels
    flat = ops.reshape(mask, (-1, height * width))

    def spread(labels, changed):
        del changed
        seen = ops.reshape(ops.where(flat, labels, -1), (-1, height, width))
        seen = ops.reshape(_highest_neighbour(seen), (-1, height * width))
        found = ops.where(flat, ops.maximum(labels, seen), labels)
        segments, number = _segments(labels)
        roots = ops.segment_max(ops.reshape(found, (-1,)), segments, number)
        found = ops.maximum(found, ops.reshape(roots, ops.shape(found)))
        found = ops.take_along_axis(found, found, axis=1)
        return found, ops.any(found != labels)

    labels, _ = ops.while_loop(
        lambda labels, changed: changed, spread, (start, ops.any(mask))
    )
    return labels


def _segments(labels):
    """Labels that differ between maps, flat, and one more than the highest."""
    count, pixels = ops.shape(labels)
    first = ops.arange(count, dtype="int32")[:, None] * pixels
    return ops.reshape(labels + first, (-1,)), count * pixels


def _highest_neighbour(values):
    """Maximum over the 3 x 3 pixels around each of `(N, H, W)`, in whole numbers."""
    rows = ops.pad(values, ((0, 0), (1, 1), (0, 0)), constant_values=-1)
    values = ops.maximum(ops.maximum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])
    columns = ops.pad(values, ((0, 0), (0, 0), (1, 1)), constant_values=-1)
    return ops.maximum(
        ops.maximum(columns[..., :-2], columns[..., 1:-1]), columns[..., 2:]
    )
