"""Patches with the most evidence: the deciding branch, their boxes and their pixels.

The AnchorNet paper, "Localizing Multi-scale Semantic Patches for Image
Classification", section 3.3. Everything is a batched tensor operation with static
shapes, so that it can be compiled and exported with the network.
"""

import fractions
import math
from collections.abc import Sequence

import numpy as np
from keras import ops

from keras_attn._checks import check_shape, is_number, number_in, pair, positive_integer
from keras_attn.ops.labels import known_values

# Coverages are taken as the nearest fraction with at most this denominator: 0.05 is
# one twentieth, and 0.29 of 100 cells are 29 although 0.29 * 100 < 29 in floats.
LARGEST_DENOMINATOR = 10_000
LOWEST = float(np.finfo("float32").min)


def branch_decision(logits):
    """The class of an image, and the branch whose evidence is to be followed.

    AnchorNet paper, equations (6) to (8). With `Y^j` the class that branch `j`
    predicts and `P^j` its probability, the class is the one on which at least two
    branches agree, otherwise that of the most confident branch. The branch is the most
    confident one among those that predict this class. Both follow from one rule: the
    branch with the most votes for its own class and, among those, the most confident.
    It also decides between pairs where there are more than three branches.

    Branches of equal confidence: the first, which has the smallest patches. Equality
    is judged by the probability that is left for the other classes, which float32 still
    resolves where `P^j` itself is rounded to 1.

    Args:
        logits: Tensor `(batch, branches, classes)`, the branches in increasing order
            of their patch sizes.

    Returns:
        `(label, branch)`, int32 tensors `(batch,)`: the class and the index of the
        branch, which predicts that class.

    Raises:
        ValueError: If `logits` is not 3-dimensional.

    Example:

    >>> agree = np.array([[[0.0, 1.0], [2.0, 0.0], [0.0, 1.5]]])
    >>> branch_decision(agree)
    ([1], [2])
    """
    check_shape("logits", logits, "(batch, branches, classes)")
    logits = ops.cast(logits, "float32")
    highest = ops.max(logits, axis=-1, keepdims=True)
    labels = first_true(ops.equal(logits, highest))
    classes = ops.arange(logits.shape[-1], dtype="int32")
    weights = ops.exp(logits - highest)
    predicted = ops.equal(ops.expand_dims(labels, -1), classes)
    doubt = ops.sum(ops.where(predicted, 0.0, weights), axis=-1)
    agree = ops.equal(ops.expand_dims(labels, 1), ops.expand_dims(labels, 2))
    votes = ops.sum(ops.cast(agree, "int32"), axis=-1)
    most = ops.equal(votes, ops.max(votes, axis=-1, keepdims=True))
    doubt = ops.where(most, doubt, np.inf)
    branch = first_true(ops.equal(doubt, ops.min(doubt, axis=-1, keepdims=True)))
    branches = ops.arange(logits.shape[1], dtype="int32")
    chosen = ops.equal(ops.expand_dims(branch, -1), branches)
    label = ops.sum(ops.where(chosen, labels, 0), axis=-1)
    return ops.cast(label, "int32"), branch


def first_true(found):
    """Index of the first true value along the last axis, 0 where there is none.

    `argmax` of integers: of real numbers Keras takes their bits apart on TensorFlow,
    which neither ONNX nor LiteRT can express.
    """
    return ops.cast(ops.argmax(ops.cast(found, "int32"), axis=-1), "int32")


def localize_patches(
    evidence,
    patch_size: int | tuple[int, int],
    max_patches: int,
    iou_threshold: float | Sequence[float] = 0.3,
    coverage: float = 1.0,
    stride: int | tuple[int, int] = 8,
    offset: int | tuple[int, int] = 0,
    compat: bool = False,
) -> dict:
    """Patches with the most evidence that overlap each other little (LSP).

    AnchorNet paper, algorithm 1, for a batch of maps. The cells are visited from the
    largest evidence to the smallest, equal ones row by row. The first patch is
    accepted, and then every patch whose intersection over union with each accepted one
    is below `T`, until there are `K` or the share `P` of the cells has been visited.

    Nothing is sorted and no cell is visited in turn: the patch that comes next is the
    first largest one among those that come after the last accepted patch and overlap
    little, so each of the `K` steps is a few reductions over all maps at once. All
    patches have the same size, so that intersection over union grows with the
    intersection, an integer; no rounding decides.

    Three choices where the paper is silent or cannot be meant: `floor(H W P)` cells
    are visited, but at least one; with one patch the algorithm stops after the first;
    with `T = 0` patches that share no pixel are accepted.

    A cell that is NaN or minus infinity is never accepted and comes last in the order;
    a map with nothing else has no patch. Where the values are known when the function
    is called, which they are not inside a compiled function or a saved model, NaN is
    an error.

    Args:
        evidence: Tensor `(batch, H, W)`: `M`, the evidence of every cell for the class
            in question. Any range. Compared in float32.
        patch_size: Integer `theta`, or `(height, width)`.
        max_patches: Positive integer `K`.
        iou_threshold: Number `T` in 0..1. With `compat` it may be a sequence or array
            of `K` numbers, the first of which holds once one patch is accepted.
        coverage: Number `P` in (0, 1].
        stride: Pixels from one cell to the next, an integer or `(rows, columns)`.
        offset: First row and column of the patch of cell `(0, 0)`, an integer or a
            pair.
        compat: Whether to reproduce the code that the authors released with their
            later work: the top-left patch is accepted whenever it is visited, overlaps
            are those of boxes one pixel smaller, a patch is accepted if they are at
            most `T`, and all cells are visited (`coverage` is ignored).

    Convention: cell `(i, j)` stands for the rows `offset + stride i` to
        `offset + stride i + patch_size - 1` of the image, and columns in the same way;
        boxes are `(y0, x0, y1, x1)`, half-open pixel coordinates.

    Returns:
        Dict of `boxes` (int32, `(batch, K, 4)`), `scores` (float32, `(batch, K)`, the
        evidence, in decreasing order) and `valid` (bool, `(batch, K)`). Where there are
        fewer than `K` patches the last are not valid: boxes -1, scores 0.

    Raises:
        ValueError: For arguments outside these ranges, and for NaN in `evidence`.

    Example:

    >>> evidence = np.array([[[0.9, 0.8, 0.1, 0.5]]])
    >>> found = localize_patches(evidence, patch_size=16, max_patches=2, stride=8)
    >>> found["boxes"]
    [[[0, 0, 16, 16], [0, 24, 16, 40]]]
    """
    height, width = pair("patch_size", patch_size, minimum=1)
    strides = pair("stride", stride, minimum=1)
    top, left = pair("offset", offset)
    thresholds = check_selection(max_patches, iou_threshold, coverage, compat)
    check_shape("evidence", evidence, "(batch, height, width)")
    evidence = ops.cast(evidence, "float32")
    _refuse_nan(evidence)

    rows, columns = ops.shape(evidence)[1:]
    cells = rows * columns
    cell = ops.expand_dims(ops.arange(cells, dtype="int32"), 0)
    everywhere = cell // columns, cell % columns
    evidence = ops.reshape(evidence, (-1, cells))
    evidence = ops.where(ops.isnan(evidence), -np.inf, evidence)
    # Boxes as they are compared, which with `compat` are not those of the pixels.
    compared = (height - 1, width - 1) if compat else (height, width)
    allowed = [
        _largest_overlap(compared[0] * compared[1], threshold, inclusive=compat)
        for threshold in thresholds
    ]
    # For each threshold, the evidence of the cells that it still lets through. Minus
    # infinity for the others is twice as fast as a mask.
    waiting = dict.fromkeys(allowed, evidence)
    limited = coverage < 1 and not compat
    found = []
    for step in range(max_patches):
        candidates = waiting[allowed[step - 1]] if step else evidence
        score = ops.max(candidates, axis=1, keepdims=True)
        # The first of equal ones; `argmax` leaves that to the backend and device.
        chosen = ops.where(candidates == score, cell, cells)
        chosen = ops.min(chosen, axis=1, keepdims=True)
        if limited or compat:
            equal_later = ops.logical_and(evidence == score, cell > chosen)
            later = ops.logical_or(evidence < score, equal_later)
        # OpenVINO has no infinity, but the lowest number in its place.
        valid = score > LOWEST
        if limited:
            unvisited = ops.sum(ops.cast(later, "int32"), axis=1, keepdims=True)
            enough = unvisited >= cells - _visits(cells, coverage)
            valid = ops.logical_and(valid, enough)
        position = chosen // columns, chosen % columns
        overlap = _overlap(position, everywhere, compared, strides)
        for most, left_over in waiting.items():
            little = overlap <= most
            if compat:
                little = ops.logical_and(ops.logical_or(little, cell == 0), later)
            waiting[most] = ops.where(little, left_over, -np.inf)
        y, x = top + strides[0] * position[0], left + strides[1] * position[1]
        box = ops.stack([y, x, y + height, x + width], axis=-1)
        found.append((box, score, valid))

    parts = zip(*found, strict=True)
    boxes, scores, valid = (ops.concatenate(part, axis=1) for part in parts)
    return {
        "boxes": ops.where(ops.expand_dims(valid, -1), boxes, -1),
        "scores": ops.where(valid, scores, 0.0),
        "valid": valid,
    }


def crop_patches(images, boxes, size: int | tuple[int, int]):
    """Pixels of the boxes, at native resolution.

    Pixels outside the image, and outside a box that is smaller than `size`, are zero;
    so is the whole patch of an absent box. Of a larger box the top-left part is kept.

    Args:
        images: Tensor `(batch, height, width, channels)` of any dtype.
        boxes: Integer tensor `(batch, K, 4)`. Convention: `(y0, x0, y1, x1)`, half-open
            pixel coordinates; all -1 where absent.
        size: Side of the patches in pixels, an integer or `(rows, columns)`.

    Returns:
        Tensor `(batch, K, rows, columns, channels)` of the dtype of `images`.

    Raises:
        ValueError: For a wrong size or number of dimensions.

    Example:

    >>> image = np.arange(12.0).reshape((1, 3, 4, 1))
    >>> crop_patches(image, np.array([[[1, 2, 3, 4]]]), size=2)[0, 0, :, :, 0]
    [[6., 7.], [10., 11.]]
    """
    rows, columns = pair("size", size, minimum=1)
    check_shape("images", images, "(batch, height, width, channels)")
    check_shape("boxes", boxes, "(batch, K, 4)")
    batch = ops.shape(images)[0]
    image = ops.expand_dims(ops.arange(batch, dtype="int32"), 1)
    return crop_boxes(images, image, boxes, (rows, columns))


def crop_boxes(images, image, boxes, size):
    """`crop_patches` of boxes that each lie in an image of their own.

    Args:
        images: Tensor `(batch, height, width, channels)`.
        image: int32 tensor `(...)`, the index of each box's image.
        boxes: Integer tensor `(..., 4)`.
        size: `(rows, columns)`.

    Returns:
        Tensor `(..., rows, columns, channels)`.
    """
    boxes = ops.cast(boxes, "int32")
    _, height, width, channels = ops.shape(images)
    row, row_inside = _window(boxes[..., 0:1], boxes[..., 2:3], size[0], height)
    column, column_inside = _window(boxes[..., 1:2], boxes[..., 3:4], size[1], width)
    # One gather of whole pixels is the fastest form on all backends: two gathers along
    # one axis each, or products with selection matrices, take longer.
    row = ops.expand_dims(ops.expand_dims(image, -1) * height + row, -1)
    pixels = ops.reshape(images, (-1, channels))
    patches = ops.take(pixels, row * width + ops.expand_dims(column, -2), axis=0)
    inside = ops.logical_and(
        ops.expand_dims(row_inside, -1), ops.expand_dims(column_inside, -2)
    )
    inside = ops.expand_dims(inside, -1)
    return ops.where(inside, patches, ops.zeros((), patches.dtype))


def check_selection(max_patches, iou_threshold, coverage, compat=False):
    """The thresholds after 1, 2, ... K - 1 accepted patches.

    Raises:
        ValueError: If an argument of `localize_patches` is out of its range.
    """
    positive_integer("max_patches", max_patches)
    number_in("coverage", coverage, "(0, 1]")
    thresholds = listed(iou_threshold)
    if not isinstance(thresholds, (tuple, list)):
        thresholds = [thresholds] * max_patches
    elif not compat or len(thresholds) != max_patches:
        raise ValueError(
            "Expected `iou_threshold` to be one number or, with `compat`, one for each "
            f"of the {max_patches} patches. Received: iou_threshold={iou_threshold!r}, "
            f"compat={compat}"
        )
    if not all(is_number(each) and 0 <= each <= 1 for each in thresholds):
        raise ValueError(
            "Expected `iou_threshold` to be in [0, 1]. "
            f"Received: iou_threshold={iou_threshold!r}"
        )
    return thresholds[: max_patches - 1]


def listed(value):
    """Plain numbers and lists in place of an array's."""
    is_array = hasattr(value, "shape") and hasattr(value, "dtype")
    return ops.convert_to_numpy(value).tolist() if is_array else value


def _refuse_nan(evidence):
    """Raises ValueError if values are known here and one of them is NaN."""
    known = known_values(evidence)
    if known is None:
        return
    bad = np.isnan(known).any(axis=(1, 2))
    if bad.any():
        raise ValueError(
            "Expected evidence without NaN. "
            f"Received: NaN in the maps {np.flatnonzero(bad)[:10].tolist()}"
        )


def _visits(cells, coverage):
    """Number of cells that are visited, `max(1, floor(cells * coverage))`."""
    share = fractions.Fraction(float(coverage)).limit_denominator(LARGEST_DENOMINATOR)
    visits = cells * share.numerator // share.denominator
    return max(visits, 1) if isinstance(visits, int) else ops.maximum(visits, 1)


def _largest_overlap(area, threshold, inclusive):
    """Largest intersection of two boxes of this area that is accepted, in pixels.

    Accepted is `intersection / union < threshold`, or `<=` if `inclusive` or if the
    threshold is zero.
    """

    def accepted(intersection):
        overlap = intersection / (2 * area - intersection) if area else 0.0
        return overlap <= threshold if inclusive else overlap < threshold

    # The solution of the equation, and past it so that rounding does no harm.
    largest = min(area, math.floor(2 * area * threshold / (1 + threshold)) + 1)
    while largest > 0 and not accepted(largest):
        largest -= 1
    return largest


def _overlap(position, others, size, strides):
    """Pixels that the patch at a cell shares with those at other cells."""
    rows, columns = (
        ops.maximum(extent - stride * ops.abs(here - there), 0)
        for here, there, extent, stride in zip(
            position, others, size, strides, strict=True
        )
    )
    return rows * columns


def _window(start, stop, size, limit):
    """Indices from `start` on, kept inside the image, and which of them were.

    Args:
        start, stop: Integer tensors `(..., 1)`.
        size: Number of indices.
        limit: Rows or columns of the image.
    """
    index = start + ops.arange(size, dtype="int32")
    inside = ops.logical_and(index >= 0, index < ops.minimum(stop, limit))
    return ops.clip(index, 0, limit - 1), inside
