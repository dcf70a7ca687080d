"""Boxes of heat maps and localisation errors, one image after the other."""

import numpy as np
import scipy.ndimage


def heat_map_box(values, threshold):
    """By SciPy's labels; 8-connected."""
    around = np.ones((3, 3), int)
    labels, count = scipy.ndimage.label(values > threshold * values.max(), around)
    if count == 0:
        return [-1] * 4
    sizes = np.bincount(labels.ravel())[1:]
    rows, columns = scipy.ndimage.find_objects(labels)[int(sizes.argmax())]
    return [rows.start, columns.start, rows.stop, columns.stop]


def inclusive_iou(box, other):
    """As the reference code of weakly supervised localisation: ends are inside."""
    y0, x0 = max(box[0], other[0]), max(box[1], other[1])
    y1, x1 = min(box[2], other[2]), min(box[3], other[3])
    shared = max(0, y1 - y0 + 1) * max(0, x1 - x0 + 1)
    areas = sum((b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (box, other))
    return shared / (areas - shared)
