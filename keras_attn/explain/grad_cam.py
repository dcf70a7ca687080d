"""Gradient-weighted class activation maps, and Grad-CAM++."""

from typing import Literal

import keras
import numpy as np
from keras import ops

from keras_attn.explain.gradients import gradient_in_float32, no_gradients
from keras_attn.explain.maps import (
    checked_format,
    checked_labels,
    finished,
    image_size,
    of_labels,
)
from keras_attn.explain.split import split, splits_of_branches
from keras_attn.ops.patches import branch_decision


def grad_cam(
    model: keras.Model,
    images,
    layer: str | None = None,
    labels=None,
    raw: bool = False,
    output: str | int | None = None,
    image_input: str | int | None = None,
    data_format: Literal["channels_last", "channels_first"] | None = None,
):
    """Map of the features of a layer that speak for a class.

    Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via
    Gradient-based Localization". With the features `A` of a layer and the logit `y` of
    a class:

    - `w_k = mean over the cells of dy / dA_k`, the weight of channel `k`, eq. (1),
    - `map = ReLU(sum over k of w_k A_k)`, eq. (2),

    interpolated bilinearly to the size of the images and scaled so that it goes from 0
    to 1. Nothing is trained: batch normalisation uses its averages, dropout none. A
    softmax or sigmoid at the model's end is left out, since `y` is what goes into it.

    Args:
        model: Functional or `Sequential` model, which may contain others at any
            depth.
        images: `(batch, height, width, channels)`, as the model takes them, at the size
            that the network sees: preprocessing inside the model may crop others. For a
            model with several inputs, the list or dict of all.
        layer: Name of a layer with the output `(batch, rows, columns, channels)`; of
            a layer of a model inside the model `"backbone/conv5_block3_out"`, of that
            model's own output `"backbone"`. The calls of a layer that is called
            several times are `"conv/0"`, `"conv/1"` and so on in the order in which
            they run; `"conv"` is the last one that the images reach. `None`: the one
            that `last_map` names; where branches decide, as in `anchornet`, the last
            map of each image's deciding branch. Maps of features that were moved, such
            as those behind a spatial transformer, do not lie over the image: take the
            layer before.
        labels: Integers `(batch,)`, or `(batch, classes)` for maps of several classes
            of every image, or one-hot rows (of two classes as real numbers or
            booleans, since two integers are two labels); `None`: the class with the
            highest logit. A single logit speaks for class 1, and its negative for
            class 0.
        raw: The maps as in eq. (2), neither interpolated nor scaled.
        output: Name or index of the output with the logits `(batch, classes)`;
            `None`: `logits`, or the only output.
        image_input: Name or index of the input with the images; `None`: the only one
            with four dimensions.
        data_format: `"channels_last"` or `"channels_first"`, of images and features;
            `None`: that of Keras.

    Returns:
        float32 tensor `(batch, height, width)` in 0..1, or `(batch, classes, height,
        width)`; with `raw`, rows and columns of the layer in place of height and
        width. A constant map, such as that of a class that no feature speaks for, is
        all zero when scaled, and a warning names it.

    Raises:
        ValueError: If the model is neither functional nor `Sequential`, has no such
            layer, output or input, the layer's output is no map, or `labels` do not
            fit the images and logits.

    Example:

    >>> backbone = keras.applications.MobileNetV2(
    ...     input_shape=(32, 48, 3), include_top=False, weights=None, name="backbone"
    ... )
    >>> inputs = keras.Input((32, 48, 3))
    >>> x = keras.layers.GlobalAveragePooling2D()(backbone(inputs))
    >>> model = keras.Model(inputs, {"logits": keras.layers.Dense(10)(x)})
    >>> images = keras.random.uniform((2, 32, 48, 3))
    >>> grad_cam(model, images, "backbone/block_13_expand_relu").shape
    (2, 32, 48)
    """
    return _maps(
        _mean_slopes,
        model,
        images,
        layer,
        labels,
        raw,
        output,
        image_input,
        data_format,
    )


def grad_cam_plus_plus(
    model: keras.Model,
    images,
    layer: str | None = None,
    labels=None,
    raw: bool = False,
    output: str | int | None = None,
    image_input: str | int | None = None,
    data_format: Literal["channels_last", "channels_first"] | None = None,
):
    """Grad-CAM with cells that count differently, for several objects of a class.

    Chattopadhay et al., "Grad-CAM++: Generalized Gradient-based Visual Explanations
    for Deep Convolutional Networks". For the score `exp(y)`, whose derivatives are
    powers of `g = dy / dA` where the network is piecewise linear, section 3.2:

    - `alpha_k = g_k^2 / (2 g_k^2 + (sum over the cells of A_k) g_k^3)`, eq. (19), in
      every cell,
    - `w_k = sum over the cells of alpha_k ReLU(g_k)`, eq. (11),
    - `map = ReLU(sum over k of w_k A_k)`.

    The factor `exp(y)` of `w_k`, the same in all cells, is left out, even from raw
    maps: it overflows and scaling removes it. The method is meant for features that
    are not negative.

    Args:
        model, images, layer, labels, raw, output, image_input, data_format: See
            `grad_cam`.

    Returns:
        float32 tensor, see `grad_cam`.

    Raises:
        ValueError: See `grad_cam`.

    Example:

    >>> model = keras.applications.MobileNetV2(
    ...     input_shape=(32, 48, 3), weights=None, classes=10
    ... )
    >>> images = keras.random.uniform((2, 32, 48, 3))
    >>> grad_cam_plus_plus(model, images).shape
    (2, 32, 48)
    """
    return _maps(
        _weighted_slopes,
        model,
        images,
        layer,
        labels,
        raw,
        output,
        image_input,
        data_format,
    )


def _maps(
    weights_of,
    model,
    images,
    layer,
    labels,
    raw,
    output,
    image_input,
    data_format,
):
    data_format = checked_format(data_format)
    branches = None
    with no_gradients():
        where = output, image_input, data_format
        if layer is None:
            branches = splits_of_branches(model, images, *where)
        if branches is None:
            parts = split(model, images, layer, *where)
    if branches is not None:
        return _deciding(weights_of, branches, labels, raw, data_format)
    labels = checked_labels(labels, _array(parts.logits))
    maps = _class_maps(parts, labels, weights_of, data_format)
    maps = finished(maps, image_size(parts.images, data_format), raw, labels)
    return maps if labels.ndim == 2 else maps[:, 0]


def _deciding(weights_of, branches, labels, raw, data_format):
    """Every image's map of the branch that decides on it."""
    logits = ops.stack([parts.logits for parts in branches], axis=1)
    decided, branch = map(ops.convert_to_numpy, branch_decision(logits))
    if labels is None:
        labels = decided
    labels = checked_labels(labels, _array(logits)[:, 0])
    size = image_size(branches[0].images, data_format)
    chosen = sorted(set(branch.tolist()))
    if raw and len(chosen) > 1:
        raise ValueError(
            "Expected `layer`, or the `output` of one branch, for raw maps of images "
            f"that different branches decide on. Received: branches {branch.tolist()}"
        )
    result = None
    for index in chosen:
        maps = _class_maps(branches[index], labels, weights_of, data_format)
        if not raw:
            maps = ops.image.resize(maps, size, "bilinear", data_format="channels_last")
        mine = ops.convert_to_tensor(branch == index)[:, None, None, None]
        result = maps if result is None else ops.where(mine, maps, result)
    maps = finished(result, size, raw, labels)
    return maps if labels.ndim == 2 else maps[:, 0]


def _array(logits):
    return ops.convert_to_numpy(ops.cast(logits, "float32"))


def _class_maps(parts, labels, weights_of, data_format):
    """`(batch, rows, columns, classes)` in float32."""
    if parts.float8:
        raise ValueError(
            "Expected a model with exact gradients behind the layer; in float8 they "
            "are rounded to two bits, and Keras has them in training only. Received: "
            f"layers in float8, {', '.join(parts.float8)}; "
            "`keras_attn.explain.occlusion` needs no gradients"
        )
    columns = np.reshape(labels, (len(labels), -1)).T
    maps = [_class_map(parts, column, weights_of, data_format) for column in columns]
    return ops.stack(maps, axis=-1)


def _class_map(parts, labels, weights_of, data_format):
    """`ReLU(sum over k of w_k A_k)` in float32, for one label per image."""

    def score(features):
        # Images do not see each other, so that the sum gives each its own gradient.
        logits = ops.cast(parts.logits_of(features), "float32")
        return ops.sum(of_labels(logits, labels))

    slope = gradient_in_float32(score, parts.features, parts.is_half)
    features = ops.stop_gradient(ops.cast(parts.features, "float32"))
    if data_format == "channels_first":
        slope, features = (ops.moveaxis(each, 1, -1) for each in (slope, features))
    weights = weights_of(slope, features)
    return ops.relu(ops.sum(weights * features, axis=-1))


def _mean_slopes(slope, features):
    return ops.mean(slope, axis=(1, 2), keepdims=True)


def _weighted_slopes(slope, features):
    # Relative to the largest: third powers of small slopes would vanish.
    largest = ops.max(ops.abs(slope), axis=(1, 2, 3), keepdims=True)
    unit = ops.where(largest > 0, largest, 1.0)
    relative = slope / unit
    square = relative**2
    total = ops.sum(features, axis=(1, 2), keepdims=True) * unit
    below = 2 * square + total * square * relative
    alpha = ops.where(below != 0, square / ops.where(below != 0, below, 1.0), 0.0)
    return ops.sum(alpha * ops.relu(slope), axis=(1, 2), keepdims=True)
