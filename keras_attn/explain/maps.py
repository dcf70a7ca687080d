"""Labels and finished maps, for all explanations."""

import warnings

import keras
import numpy as np
from keras import ops

from keras_attn.graph.keras_graph import graph_of

# Range of a map, relative to its largest value, below which it is constant.
SMALLEST_RANGE = 1e-5


def checked_labels(labels, scores, even=0.0):
    """int32 labels `(batch,)` or `(batch, classes)`.

    Args:
        labels: Integers, or one-hot rows, or `None`: those with the highest score.
        scores: NumPy array `(batch, classes)`. One score stands for two classes: class
            1, and class 0 by its negative.
        even: The score between two such classes: 0 for logits, 0.5 for probabilities.
    """
    count, classes = len(scores), max(scores.shape[1], 2)
    if labels is None:
        is_one = scores.shape[1] == 1
        labels = scores[:, 0] > even if is_one else scores.argmax(axis=-1)
        return labels.astype("int32")
    labels = np.asarray(labels)
    if _is_one_hot(labels, classes):
        labels = labels.argmax(axis=1)
    if (
        labels.ndim not in (1, 2)
        or len(labels) != count
        or labels.dtype.kind not in "iu"
    ):
        raise ValueError(
            f"Expected `labels` to be integers of shape ({count},) or ({count}, "
            f"classes), or one-hot rows ({count}, {classes}). "
            f"Received: {labels.dtype} of shape {labels.shape}"
        )
    if labels.size and not (0 <= labels.min() and labels.max() < classes):
        raise ValueError(
            f"Expected `labels` in 0..{classes - 1}. "
            f"Received: {labels.min()}..{labels.max()}"
        )
    return labels.astype("int32")


def _is_one_hot(labels, classes):
    """`True` for rows of one 1 and else 0; of two integers they are two labels."""
    return (
        labels.ndim == 2
        and labels.shape[1] == classes
        and (labels.dtype.kind in "bf" or classes > 2)
        and bool(np.all((labels == 0) | (labels == 1)))
        and bool(np.all(labels.sum(axis=1) == 1))
    )


def of_labels(scores, labels):
    """The scores of some classes; of one score, its negative for class 0.

    Args:
        scores: Tensor or NumPy array `(batch, ..., scores)`.
        labels: Integers `(batch,)` or `(batch, classes)`, see `checked_labels`.

    Returns:
        A tensor or array `(batch, ..., classes)`; one class for labels `(batch,)`.
    """
    library = np if isinstance(scores, np.ndarray) else ops
    columns = np.reshape(labels, (len(labels), *[1] * (len(scores.shape) - 2), -1))
    if scores.shape[-1] == 1:
        return library.where(columns > 0, scores, -scores)
    columns = np.broadcast_to(columns, (*scores.shape[:-1], columns.shape[-1]))
    return library.take_along_axis(scores, columns, axis=-1)


def finished(maps, size, raw, labels=None):
    """Maps at the size of the images, each from 0 to 1, unless they are to stay raw.

    Warns of constant maps, which point at nothing.

    Args:
        maps: `(batch, rows, columns, classes)`, float32.
        size: `(height, width)`.
        raw: Whether they stay as they are.
        labels: Integers `(batch,)` or `(batch, classes)`, for the warning.

    Returns:
        `(batch, classes, rows, columns)`.
    """
    warn_of_constant(ops.convert_to_numpy(maps), labels)
    if not raw:
        maps = ops.image.resize(maps, size, "bilinear", data_format="channels_last")
        maps = scaled(maps)
    return ops.moveaxis(maps, -1, 1)


def warn_of_constant(maps, labels=None):
    """Warns where a map of an array `(batch, rows, columns, classes)` is constant."""
    lowest, highest = maps.min(axis=(1, 2)), maps.max(axis=(1, 2))
    largest = np.maximum(np.abs(lowest), np.abs(highest))
    constant = np.argwhere(highest - lowest <= SMALLEST_RANGE * largest)
    if len(constant):
        image, column = constant[0]
        of_class = ""
        if labels is not None:
            of_class = (
                f" for class {np.reshape(labels, (len(maps), -1))[image, column]}"
            )
        warnings.warn(
            f"{len(constant)} of {maps.shape[0] * maps.shape[3]} maps are constant and "
            f"point at nothing, the first that of image {image}{of_class}.",
            stacklevel=2,
        )


def scaled(maps):
    """Each map from 0 to 1; one that is constant but for rounding is 0."""
    lowest = ops.min(maps, axis=(1, 2), keepdims=True)
    highest = ops.max(maps, axis=(1, 2), keepdims=True)
    largest = ops.maximum(ops.abs(lowest), ops.abs(highest))
    varies = highest - lowest > SMALLEST_RANGE * largest
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


def call_inputs(model, images):
    """Tensors as a model takes them; of a single input by name, the images alone do."""
    inputs = keras.tree.map_structure(ops.convert_to_tensor, images)
    graph = graph_of(model)
    wanted = None if graph is None else graph.input
    if isinstance(wanted, dict) and len(wanted) == 1 and ops.is_tensor(inputs):
        return dict.fromkeys(wanted, inputs)
    return inputs


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
