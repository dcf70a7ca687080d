"""Checks of labels, as far as shapes and values are known when a loss is called."""

import numpy as np
from keras import ops


def known_values(tensor):
    """A tensor as a NumPy array, or `None` while a graph is traced."""
    try:
        return ops.convert_to_numpy(tensor)
    except (NotImplementedError, RuntimeError, TypeError, ValueError):
        return None  # each backend's way of saying that it is tracing


def image_labels(name, labels, count, lowest, highest):
    """One whole number for each image, as a tensor `(batch,)` in the dtype of `labels`.

    Args:
        name: Name of the argument, for the message.
        labels: Tensor `(batch,)` or `(batch, 1)`.
        count: Number of images, or `None` if it is unknown.
        lowest, highest: The smallest and the largest label.

    Raises:
        ValueError: For another shape, an empty batch or, where values are known, other
            numbers.

    Example:

    >>> image_labels("y_true", np.eye(10), 10, 0, 9)
    ValueError: Expected `y_true` to be integer labels (batch,) or (batch, 1), for a
    batch of 10 images. Received: y_true.shape=(10, 10)
    """
    labels = ops.convert_to_tensor(labels)
    shape = tuple(labels.shape)
    given = shape[0] if shape else 0
    fits = count is None or given in (None, count)
    if shape[1:] not in ((), (1,)) or not fits or 0 in (given, count):
        images = "" if count is None else f", for a batch of {count} images"
        least = " of at least one image" if 0 in (given, count) else ""
        raise ValueError(
            f"Expected `{name}` to be integer labels (batch,) or (batch, 1){images}"
            f"{least}. Received: {name}.shape={shape}"
        )
    labels = ops.reshape(labels, (-1,))
    known = known_values(labels)
    if known is not None:
        known = np.asarray(known, "float64")
        wrong = ~((known >= lowest) & (known <= highest)) | (known % 1 != 0)
        if wrong.any():
            raise ValueError(
                f"Expected `{name}` to be integer labels in {lowest}..{highest}. "
                f"Received: {name}={known[wrong][:5].tolist()}"
            )
    return labels
