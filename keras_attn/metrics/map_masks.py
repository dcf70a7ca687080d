"""Relevance of maps inside a mask of the object, and how few cells hold it."""

import numpy as np


def relevance_mass_accuracy(maps, masks: np.ndarray) -> np.ndarray:
    """Share of a map's sum inside the mask.

    Arras et al., "CLEVR-XAI: A Benchmark Dataset for the Ground Truth Evaluation of
    Neural Network Explanations", eq. (1).

    Args:
        maps: `(N, height, width)`, not negative.
        masks: Booleans `(N, height, width)`, true on the object.

    Returns:
        `(N,)` in 0..1; NaN where a mask is empty or a map is zero.

    Raises:
        ValueError: If the shapes differ.

    Example:

    >>> relevance_mass_accuracy([[[3, 1], [0, 0]]], [[[1, 0], [0, 0]]])
    array([0.75])

    Reference: [arras2020] arXiv:2003.07258, section 3.3.
    """
    maps, masks = _flat(maps, masks)
    total = np.where(masks.any(axis=1), maps.sum(axis=1), 0.0)
    inside = (maps * masks).sum(axis=1)
    return np.divide(inside, total, out=np.full(len(maps), np.nan), where=total != 0)


def relevance_rank_accuracy(maps, masks: np.ndarray) -> np.ndarray:
    """Share of the mask among as many of the highest cells of a map.

    Arras et al., eq. (2). Of equal values the upper left comes first.

    Args:
        maps: `(N, height, width)`.
        masks: Booleans `(N, height, width)`, true on the object.

    Returns:
        `(N,)` in 0..1; NaN where a mask is empty.

    Raises:
        ValueError: If the shapes differ.

    Example:

    >>> relevance_rank_accuracy([[[4, 1], [3, 2]]], [[[1, 1], [0, 0]]])
    array([0.5])

    Reference: [arras2020] arXiv:2003.07258, section 3.3.
    """
    maps, masks = _flat(maps, masks)
    order = np.argsort(-maps, axis=1, kind="stable")
    found = np.take_along_axis(masks, order, axis=1)
    counts = masks.sum(axis=1)
    among = np.arange(maps.shape[1]) < counts[:, None]
    hits = (found & among).sum(axis=1)
    return np.divide(hits, counts, out=np.full(len(maps), np.nan), where=counts > 0)


def sparseness(maps) -> np.ndarray:
    """Gini index of a map: 0 where all cells are equal, near 1 where one holds all.

    Chalasani et al., "Concise Explanations of Neural Networks using Adversarial
    Training", section 2.

    Args:
        maps: `(N, height, width)`, of which the absolute values count.

    Returns:
        `(N,)` in 0..1.

    Example:

    >>> sparseness([[[0, 0], [0, 1]]]).round(3)
    array([0.75])

    Reference: [chalasani2018] arXiv:1810.06583.
    """
    maps = np.asarray(maps, "float64")
    cells = np.sort(np.abs(maps).reshape(len(maps), -1), axis=1)
    count, total = cells.shape[1], cells.sum(axis=1)
    weights = 2 * np.arange(1, count + 1) - count - 1
    above = (weights * cells).sum(axis=1)
    return np.divide(above, count * total, out=np.zeros(len(maps)), where=total > 0)


def masks_of_boxes(boxes, size):
    """Booleans `(N, height, width)` of boxes `(N, 4)`, see `pointing_game`."""
    height, width = size
    y, x = np.arange(height)[:, None] + 0.5, np.arange(width) + 0.5
    sides = np.moveaxis(np.asarray(boxes, "float64"), -1, 0)[..., None, None]
    y0, x0, y1, x1 = sides
    return (y0 <= y) & (y < y1) & (x0 <= x) & (x < x1)


def _flat(maps, masks):
    maps, masks = np.asarray(maps, "float64"), np.asarray(masks, bool)
    if maps.ndim != 3 or maps.shape != masks.shape:
        raise ValueError(
            "Expected maps and masks (N, height, width). "
            f"Received: shapes {maps.shape} and {masks.shape}"
        )
    return maps.reshape(len(maps), -1), masks.reshape(len(maps), -1)
