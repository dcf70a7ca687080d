"""Gradient-weighted class activation maps, and Grad-CAM++."""

from typing import Literal

import keras
from keras import ops

from keras_attn.explain.feature_maps import Asked, DataFormat, feature_maps
from keras_attn.explain.targets import Target


def grad_cam(
    model: keras.Model,
    images,
    layer: str | None = None,
    labels=None,
    raw: bool = False,
    output: str | int | None = None,
    image_input: str | int | None = None,
    data_format: DataFormat | None = None,
    target: Target | None = None,
    against: Literal["nearest"] | int | list[int] | None = None,
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
            they run; `"conv"` is the last one that the images reach. Tokens `(batch,
            tokens, channels)` are as good, their patches make the map; a layer that
            another calls, as in KerasHub's transformers, is named by its path,
            `"vit_encoder/transformer_block_12/ln_1"`. `None`: the one
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
        output: Name or index of the output with the logits `(batch, classes)`, of any
            shape for a function as `target`; `None`: `logits`, or the only output.
        image_input: Name or index of the input with the images; `None`: the only one
            with four dimensions.
        data_format: `"channels_last"` or `"channels_first"`, of images and features;
            `None`: that of Keras.
        target: What is explained, in place of `labels` and the same for all images: a
            class; a function from the scores to one number per image `(batch,)`, such
            as `keras_attn.explain.pixels(mask, label)` for a segmentation or
            `similarity(embedding)`; or a list of such, for one map each. Of a single
            score, of a regression too, 1 asks what raises it and 0 what lowers it.
        against: Classes to compare with, after Zhang et al., "Finer-CAM": the score
            `y` less the mean score of these classes, weighted by their probabilities;
            `"nearest"` for the three with the most similar logits.

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

    Reference: [selvaraju2016] arXiv:1610.02391; [zhang2025] arXiv:2501.11309.
    """
    given = model, images, layer, labels, raw, output, image_input, data_format
    return feature_maps(_by_mean_slopes, Asked(*given, target, against))


def grad_cam_plus_plus(
    model: keras.Model,
    images,
    layer: str | None = None,
    labels=None,
    raw: bool = False,
    output: str | int | None = None,
    image_input: str | int | None = None,
    data_format: DataFormat | None = None,
    target: Target | None = None,
    against: Literal["nearest"] | int | list[int] | None = None,
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
        model, images, layer, labels, raw, output, image_input, data_format, target,
            against: See `grad_cam`.

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
    given = model, images, layer, labels, raw, output, image_input, data_format
    return feature_maps(_by_weighted_slopes, Asked(*given, target, against))


def _by_mean_slopes(slope, features):
    weights = ops.mean(slope, axis=(1, 2), keepdims=True)
    return ops.relu(ops.sum(weights * features, axis=-1))


def _by_weighted_slopes(slope, features):
    # Relative to the largest: third powers of small slopes would vanish.
    largest = ops.max(ops.abs(slope), axis=(1, 2, 3), keepdims=True)
    unit = ops.where(largest > 0, largest, 1.0)
    relative = slope / unit
    square = relative**2
    total = ops.sum(features, axis=(1, 2), keepdims=True) * unit
    below = 2 * square + total * square * relative
    alpha = ops.where(below != 0, square / ops.where(below != 0, below, 1.0), 0.0)
    weights = ops.sum(alpha * ops.relu(slope), axis=(1, 2), keepdims=True)
    return ops.relu(ops.sum(weights * features, axis=-1))
