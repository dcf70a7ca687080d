"""Boxes: int32 `(y0, x0, y1, x1)`, half-open pixel coordinates of the image.

Convention: the origin is the outer corner of the top-left pixel, so that a box covers
the rows `y0` to `y1 - 1`. An absent box is all -1; it covers nothing.
"""

import keras
from keras import ops


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
