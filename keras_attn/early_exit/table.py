"""Exit tables, to which exit policies are fitted.

A network with early exits answers several times, each time at a higher total cost. An
exit table holds the outcome in three arrays:

- `confidence` `(N, E)` float: maximum softmax of each of the E answers to N images,
- `correct` `(N, E)` bool: whether that answer is right,
- `cost` `(E,)`: total cost of stopping at each exit, increasing, in any unit.

In a file they are a `.npz` with these names. `keras_attn.models.exit_table` makes them
from a model and images.
"""

from typing import NamedTuple

import numpy as np


class ExitTable(NamedTuple):
    """The arrays of an exit table: see the module's docstring."""

    confidence: np.ndarray
    correct: np.ndarray
    cost: np.ndarray

    def point(self, exits):
        """Mean `cost` and `accuracy` if each image stops at its exit, as a dict.

        Args:
            exits: `(N,)` numbers of exits.
        """
        right = self.correct[np.arange(len(exits)), exits]
        return {
            "cost": float(self.cost[exits].mean()),
            "accuracy": float(right.mean()),
        }


def check_exit_table(confidence, correct, cost):
    """An `ExitTable` with arrays of float32, bool and float64.

    Raises:
        ValueError: For other shapes or values than the module's docstring names.
    """
    cost = check_cost(cost)
    confidence, correct = np.asarray(confidence), np.asarray(correct)
    for name, array in (("confidence", confidence), ("correct", correct)):
        if array.ndim != 2 or array.shape[1] != len(cost) or not len(array):
            raise ValueError(
                f"Expected {name} of shape (images, {len(cost)}), with at least one "
                f"image and an exit for each cost. Received: shape {array.shape}"
            )
    if len(confidence) != len(correct):
        raise ValueError(
            "Expected confidence and correct of the same images. Received: "
            f"{len(confidence)} and {len(correct)}"
        )
    if not np.issubdtype(confidence.dtype, np.floating):
        raise ValueError(
            f"Expected confidence of floats. Received: dtype {confidence.dtype}"
        )
    # A softmax in single precision may exceed one by a rounding error.
    outside = ~((confidence >= 0) & (confidence <= 1 + 1e-5))
    if outside.any():
        row, column = np.argwhere(outside)[0]
        raise ValueError(
            f"Expected confidence in 0..1. Received: {confidence[row, column]} at "
            f"image {row}, exit {column}"
        )
    if correct.dtype != bool and not (
        np.issubdtype(correct.dtype, np.number) and np.isin(correct, (0, 1)).all()
    ):
        raise ValueError(
            "Expected correct of booleans, or of zeros and ones. Received: dtype "
            f"{correct.dtype}"
        )
    confidence = np.clip(confidence.astype("float32"), 0, 1)
    return ExitTable(confidence, correct.astype(bool), cost)


def check_cost(cost):
    """Costs as an array `(exits,)` of float64."""
    try:
        array = np.asarray(cost, "float64")
    except (TypeError, ValueError):
        array = None
    if (
        array is None
        or array.ndim != 1
        or not len(array)
        or not np.isfinite(array).all()
        or (np.diff(array) <= 0).any()
    ):
        raise ValueError(
            "Expected cost of shape (exits,) with finite numbers that increase. "
            f"Received: cost={cost}"
        )
    return array
