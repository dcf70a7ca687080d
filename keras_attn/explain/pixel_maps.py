"""Splits at the images themselves, for methods that take slopes at the pixels."""

import keras

from keras_attn.explain.feature_maps import Asked, check_exact
from keras_attn.explain.split import IMAGES


def pixel_split(
    model, images, labels, raw, output, image_input, data_format, target, against
):
    """`Asked`, and the `Split` and `Objectives` at the images, see `grad_cam`."""
    given = labels, raw, output, image_input, data_format, target, against
    asked = Asked(model, images, IMAGES, *given)
    parts, objective = asked.split()
    check_exact(parts)
    dtype = keras.backend.standardize_dtype(parts.features.dtype)
    if not keras.backend.is_float_dtype(dtype):
        raise ValueError(
            "Expected a model of images in floating point, which have slopes. "
            f"Received: a model of images in {dtype}"
        )
    return asked, parts, objective
