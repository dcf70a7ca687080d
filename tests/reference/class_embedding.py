"""The class-embedding block in plain, slow NumPy."""

import numpy as np


def window_average(maps, window):
    """Double loop over cells; the mean of the cells that the window holds."""
    _, height, width, _ = maps.shape
    rows, columns = window
    averages = np.empty_like(maps)
    for i in range(height):
        top, bottom = max(0, i - (rows - 1) // 2), min(height, i + rows // 2 + 1)
        for j in range(width):
            left = max(0, j - (columns - 1) // 2)
            right = min(width, j + columns // 2 + 1)
            patch = maps[:, top:bottom, left:right]
            averages[:, i, j] = patch.mean(axis=(1, 2))
    return averages


def class_embedding(maps, window, classifier, normalization, values, shortcut):
    """Steps 1 to 4 in inference mode.

    Args:
        classifier, values, shortcut: `(kernel, bias)`; a `shortcut` of `None`
            concatenates.
        normalization: `(gamma, beta, mean, variance, epsilon)`.

    Returns:
        `(features, patch_logits)`.
    """
    scores = window_average(maps, window) @ classifier[0] + classifier[1]
    gamma, beta, mean, variance, epsilon = normalization
    normalized = gamma * (scores - mean) / np.sqrt(variance + epsilon) + beta
    embedding = np.maximum(normalized, 0.0) @ values[0] + values[1]
    if shortcut is None:
        return np.concatenate([maps, embedding], axis=-1), scores
    return maps @ shortcut[0] + shortcut[1] + embedding, scores
