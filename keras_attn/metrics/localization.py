"""Errors of naming an object and of finding it."""

import numpy as np
from keras import ops

from keras_attn.ops.boxes import iou


def localization_errors(
    boxes, predictions, labels, true_boxes, threshold: float = 0.5, top: int = 5
):
    """Shares of images whose object is not named, not found, or neither.

    The errors of the ImageNet localisation challenge for one object per image. A class
    counts if it is the true one and its box overlaps with a true box by an
    intersection over union of at least `threshold`:

    - `top1`: the most probable class does not count,
    - `top5`: none of the five most probable classes counts,
    - `ground_truth_known`: the box of the true class, given as known, does not
      overlap enough, whatever the model predicts.

    Since no other class than the true one can count, its box is all that is needed.

    Args:
        boxes: `(N, 4)`, box from the model's map of the true class;
            `(y0, x0, y1, x1)`, half-open pixels, -1 where there is no box.
        predictions: `(N, k)` labels, the most probable first, `k >= 1`.
        labels: `(N,)`, the true ones.
        true_boxes: `(N, 4)`, or `(N, M, 4)` for several of the class in an image, -1
            where there are fewer. Every image has at least one.
        threshold: Smallest overlap of a box that is found.
        top: The number in `top5`.

    Returns:
        Dict of the three errors, in 0..1; the name of the second follows `top`.

    Raises:
        ValueError: If shapes do not fit, there are no images, or an image has no true
            box.

    Example:

    >>> boxes = np.array([[0, 0, 4, 4], [0, 0, 4, 4]])
    >>> true_boxes = np.array([[0, 0, 4, 5], [2, 2, 9, 9]])
    >>> localization_errors(boxes, [[1, 0], [2, 1]], [0, 2], true_boxes)
    {'top1': 1.0, 'top5': 0.5, 'ground_truth_known': 0.5}
    """
    boxes, predictions, labels, true_boxes = map(
        np.asarray, (boxes, predictions, labels, true_boxes)
    )
    if true_boxes.ndim == 2:
        true_boxes = true_boxes[:, None]
    _check(boxes, predictions, labels, true_boxes)
    overlap = ops.convert_to_numpy(iou(boxes[:, None], true_boxes))
    found = overlap.max(axis=(1, 2)) >= threshold
    named = predictions == labels[:, None]
    correct = {
        "top1": found & named[:, 0],
        f"top{top}": found & named[:, :top].any(axis=1),
        "ground_truth_known": found,
    }
    return {name: 1.0 - float(hits.mean()) for name, hits in correct.items()}


def corloc(boxes, true_boxes, threshold: float = 0.5) -> float:
    """Correct localisation: share of images in which the box is that of an object.

    Args:
        boxes: `(N, 4)`; `(y0, x0, y1, x1)`, half-open pixels, -1 where there is no box.
        true_boxes: `(N, 4)`, or `(N, M, 4)` for several in an image, -1 where there are
            fewer. Every image has at least one.
        threshold: Smallest intersection over union of a box that is correct.

    Returns:
        The share, in 0..1.

    Raises:
        ValueError: If shapes do not fit, there are no images, or an image has no true
            box.

    Example:

    >>> corloc([[0, 0, 4, 4], [0, 0, 4, 4]], [[0, 0, 4, 5], [2, 2, 9, 9]])
    0.5
    """
    classes = np.zeros((len(boxes), 1), int)
    errors = localization_errors(boxes, classes, classes[:, 0], true_boxes, threshold)
    return 1.0 - errors["ground_truth_known"]


def _check(boxes, predictions, labels, true_boxes):
    count = len(labels)
    fit = (
        count > 0
        and labels.ndim == 1
        and boxes.shape == (count, 4)
        and predictions.ndim == 2
        and len(predictions) == count
        and predictions.shape[1] > 0
        and true_boxes.ndim == 3
        and true_boxes.shape[::2] == (count, 4)
    )
    if not fit:
        raise ValueError(
            "Expected boxes (N, 4), predictions (N, k), labels (N,) and true boxes "
            "(N, 4) or (N, M, 4), with N and k at least 1. Received: shapes "
            f"{boxes.shape}, {predictions.shape}, {labels.shape}, {true_boxes.shape}"
        )
    absent = np.flatnonzero((true_boxes[..., 0] < 0).all(axis=1))
    if len(absent):
        raise ValueError(
            "Expected a true box for every image. "
            f"Received: {len(absent)} images without one, the first is {absent[0]}"
        )
