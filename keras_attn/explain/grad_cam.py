"""Gradient-weighted class activation maps."""

import difflib

import keras
import numpy as np
from keras import ops

from keras_attn.explain.gradients import gradient


def grad_cam(model, images, layer, labels=None, raw=False):
    """Where the features of a layer speak for a class.

    Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via
    Gradient-based Localization". With the features `A` of a layer and the logit `y` of
    a class:

    - `w_k = mean over the cells of dy / dA_k`, the weight of channel `k`, eq. (1),
    - `map = ReLU(sum over k of w_k A_k)`, eq. (2),

    interpolated bilinearly to the size of the images and scaled so that it goes from 0
    to 1. Nothing is trained: batch normalisation uses its averages, dropout none.

    Args:
        model: Functional model; its output is the logits, or a dict with `logits`.
        images: `(batch, height, width, channels)`, what the model takes, at the size
            that the network sees: preprocessing inside the model may crop others.
        layer: Name of a layer of the model with the output `(batch, rows, columns,
            channels)`. Maps of features that were moved, such as those behind a
            spatial transformer, do not lie over the image: take the layer before.
        labels: Integers `(batch,)`, or `(batch, classes)` for maps of several classes
            of every image; `None`: the class with the highest logit.
        raw: The maps as in eq. (2), neither interpolated nor scaled.

    Returns:
        float32 tensor `(batch, height, width)` in 0..1, or `(batch, classes, height,
        width)`; with `raw`, rows and columns of the layer in place of height and
        width. A constant map, such as that of a class that no feature speaks for, is
        all zero when scaled.

    Raises:
        ValueError: If the model has no such layer, its output is no map, or `labels`
            do not fit the images and logits.

    Example:

    >>> inputs = keras.Input((32, 48, 3))
    >>> x = keras.layers.Conv2D(8, 3, 4, activation="relu", name="features")(inputs)
    >>> x = keras.layers.GlobalAveragePooling2D()(x)
    >>> model = keras.Model(inputs, {"logits": keras.layers.Dense(10)(x)})
    >>> grad_cam(model, keras.random.uniform((2, 32, 48, 3)), "features").shape
    (2, 32, 48)
    """
    body, head = _split(model, layer)
    images = ops.convert_to_tensor(images)
    features = body(images, training=False)
    logits = ops.convert_to_numpy(head([features, images], training=False))
    labels = _checked_labels(labels, logits)
    columns = labels if labels.ndim == 2 else labels[:, None]
    maps = [
        _class_map(lambda x: head([x, images], training=False), features, column)
        for column in columns.T
    ]
    maps = ops.stack(maps, axis=-1)
    if not raw:
        maps = ops.image.resize(
            maps, images.shape[1:3], "bilinear", data_format="channels_last"
        )
        maps = _scaled(maps)
    return ops.moveaxis(maps, -1, 1) if labels.ndim == 2 else maps[..., 0]


def _split(model, name):
    """The model up to a layer, and from its features and the images to the logits."""
    names = [layer.name for layer in model.layers]
    if name not in names:
        nearest = difflib.get_close_matches(str(name), names, 1, cutoff=0.0)[0]
        raise ValueError(
            f"Expected `layer` to be a layer of {model.name!r}. "
            f"Received: layer={name!r}; the nearest is {nearest!r}."
        )
    features = model.get_layer(name).output
    if not isinstance(features, keras.KerasTensor) or len(features.shape) != 4:
        shape = keras.tree.map_structure(lambda tensor: tensor.shape, features)
        raise ValueError(
            f"Expected a layer with the output (batch, rows, columns, channels). "
            f"Received: layer={name!r} with {shape}"
        )
    logits = model.output["logits"] if isinstance(model.output, dict) else model.output
    body = keras.Model(model.inputs[0], features)
    # The images too, for what reaches the logits beside the layer.
    head = keras.Model([features, model.inputs[0]], logits)
    return body, head


def _class_map(logits_of, features, labels):
    """`ReLU(sum over k of w_k A_k)` in float32, for one label an image."""
    labels = ops.convert_to_tensor(labels)[:, None]

    def score(features):
        # Images do not see each other, so that the sum gives each its own gradient.
        logits = ops.cast(logits_of(features), "float32")
        return ops.sum(ops.take_along_axis(logits, labels, axis=1))

    slope = ops.cast(gradient(score, features), "float32")
    weights = ops.mean(slope, axis=(1, 2), keepdims=True)
    features = ops.stop_gradient(ops.cast(features, "float32"))
    return ops.relu(ops.sum(weights * features, axis=-1))


def _scaled(maps):
    """Each map from 0 to 1; one that is constant but for rounding is 0."""
    lowest = ops.min(maps, axis=(1, 2), keepdims=True)
    highest = ops.max(maps, axis=(1, 2), keepdims=True)
    varies = highest - lowest > 1e-5 * highest
    width = ops.where(varies, highest - lowest, 1.0)
    return ops.where(varies, (maps - lowest) / width, 0.0)


def _checked_labels(labels, logits):
    """int32 labels `(batch,)` or `(batch, classes)`."""
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
