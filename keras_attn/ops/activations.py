"""Activations as the published networks have them."""

import math

import keras
from keras import ops

from keras_attn.ops.tracing import traced_format


def exact_gelu(inputs):
    """GELU by the error function, in a form that every format has.

    Keras computes it by `erfc`, which ONNX lacks.
    """
    if traced_format() == "onnx":
        return 0.5 * inputs * (1.0 + ops.erf(inputs * math.sqrt(0.5)))
    return keras.activations.gelu(inputs, approximate=False)
