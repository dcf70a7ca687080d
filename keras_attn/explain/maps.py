"""Labels and finished maps, for all explanations."""

import keras
import numpy as np
from keras import ops


def checked_labels(labels, logits):
    """int32 labels `(batch,)` or `(batch, classes)`.

    Args:
        labels: Integers, or `None`: those with the highest logit.
        logits: NumPy array `(batch, classes)`.
    """
    if labels is None:
        return logits.argmax(axis=-1).astype("int32")
    labels = np.asarray(labels)
    count, classes = logits.shape
    if (
        labels.ndim not in (1, 2)
        or len(labels) != count
        or labels.dtype.kind not in "iu"
    ):
        raise ValueError(
            f"Expected `labels` to be integers of shape ({count},) or ({count}, "
            f"classes). Received: {labels.dtype} of shape {labels.shape}"
        )
    if labels.size and not (0 <= labels.min() and labels.max() < classes):
        raise ValueError(
            f"Expected `labels` in 0..{classes - 1}. "
            f"Received: {labels.min()}..{labels.max()}"
        )
    return labels.astype("int32")


def finished(maps, size, raw):
    """Maps at the size of the images, each from 0 to 1, unless they are to stay raw.

    Args:
        maps: `(batch, rows, columns, classes)`, float32.
        size: `(height, width)`.
        raw: Whether they stay as they are.

    Returns:
        `(batch, classes, rows, columns)`.
    """
    if not raw:
        maps = ops.image.resize(maps, size, "bilinear", data_format="channels_last")
        maps = scaled(maps)
    return ops.moveaxis(maps, -1, 1)


def scaled(maps):
    """Each map from 0 to 1; one that is constant but for rounding is 0."""
    lowest = ops.min(maps, axis=(1, 2), keepdims=True)
    highest = ops.max(maps, axis=(1, 2), keepdims=True)
    largest = ops.maximum(ops.abs(lowest), ops.abs(highest))
    varies = highest - lowest > 1e-5 * largest
    width = ops.where(varies, highest - lowest, 1.0)
    return ops.where(varies, (maps - lowest) / width, 0.0)


def checked_format(data_format):
    """`channels_last` or `channels_first`; by default that of Keras."""
    if data_format is None:
        return keras.config.image_data_format()
    if data_format not in ("channels_last", "channels_first"):
        raise ValueError(
            "Expected `data_format` to be 'channels_last' or 'channels_first'. "
            f"Received: data_format={data_format!r}"
        )
    return data_format


def image_size(images, data_format):
    """`(height, width)`."""
    shape = tuple(images.shape)
    return shape[1:3] if data_format == "channels_last" else shape[2:]


def image_position(inputs, image_input):
    """Position of the images among the flat inputs.

    Args:
        inputs: Array, or list or dict of arrays.
        image_input: Its key or index, or `None`: the only one with four dimensions.
    """
    flat = keras.tree.flatten(inputs)
    names = sorted(inputs) if isinstance(inputs, dict) else list(range(len(flat)))
    shapes = [tuple(each.shape) for each in flat]
    found = [i for i, shape in enumerate(shapes) if len(shape) == 4]
    if image_input is not None:
        found = [i for i in found if image_input in (names[i], i)]
    if len(found) != 1:
        raise ValueError(
            "Expected images (batch, height, width, channels), and `image_input` to be "
            f"their name or index among {names}. "
            f"Received: image_input={image_input!r} and shapes {shapes}"
        )
    return found[0]
