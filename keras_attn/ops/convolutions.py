"""Convolutions over channels-last maps in the form that the backend computes fastest.

Keras hands them on as they are: XLA computes a depthwise product on a CPU tens of
times slower than the sum of shifted maps that it is; on torch Keras copies every map
twice, to channels first and back, where a view of it will do.
"""

import functools

import keras
import numpy as np
from keras import ops

from keras_attn.ops.precision import float_dtype
from keras_attn.ops.tracing import traced_format

# Up to 7 x 7; what a sum of shifted maps takes to compile grows with its terms.
MOST_SHIFTS = 49


def conv(inputs, kernel, strides=1, padding="valid", dilation_rate=1):
    """`keras.ops.conv` of a map `(batch, height, width, channels)`."""
    options = {"strides": strides, "padding": padding, "dilation_rate": dilation_rate}
    return _as_view(ops.conv, inputs, kernel, options)


def depthwise_conv(inputs, kernel, strides=1, padding="valid", dilation_rate=1):
    """`keras.ops.depthwise_conv` of a map, equal to rounding.

    Args:
        inputs: `(batch, height, width, channels)`.
        kernel: `(rows, columns, channels, multiplier)`.
        strides, dilation_rate: Positive integer, or one for rows and columns each.
        padding: `"valid"` or `"same"`.

    Returns:
        `(batch, rows, columns, channels * multiplier)` in the dtype of `inputs`.

    Example:

    >>> inputs = np.array([[[[1.0], [2.0], [4.0]]]])
    >>> depthwise_conv(inputs, np.array([[[[-1.0]], [[1.0]]]]))[0, 0, :, 0]
    [1., 2.]
    """
    if _shifts_pay(inputs, kernel):
        strides, dilation_rate = _pair(strides), _pair(dilation_rate)
        return _sum_of_shifts(inputs, kernel, strides, padding, dilation_rate)
    options = {"strides": strides, "padding": padding, "dilation_rate": dilation_rate}
    return _as_view(ops.depthwise_conv, inputs, kernel, options)


def _as_view(convolve, inputs, kernel, options):
    """The convolution; on torch, of a view with channels first and no copy."""
    if keras.backend.backend() != "torch":
        return convolve(inputs, kernel, data_format="channels_last", **options)
    inputs = ops.transpose(inputs, (0, 3, 1, 2))
    outputs = convolve(inputs, kernel, data_format="channels_first", **options)
    return ops.transpose(outputs, (0, 2, 3, 1))


def _shifts_pay(inputs, kernel):
    rows, columns, _, multiplier = kernel.shape
    return (
        keras.backend.backend() == "jax"
        and multiplier == 1
        and rows * columns <= MOST_SHIFTS
        and all(isinstance(size, int) for size in inputs.shape[1:])
        and _on_cpu()
        and traced_format() is None
    )


@functools.cache
def _on_cpu():
    return all(each.startswith("cpu") for each in keras.distribution.list_devices())


def _sum_of_shifts(inputs, kernel, strides, padding, dilation_rate):
    inputs = ops.convert_to_tensor(inputs)
    rows, columns, _, _ = kernel.shape
    sizes = zip(inputs.shape[1:3], (rows, columns), strides, dilation_rate, strict=True)
    axes = [_axis(*each, padding) for each in sizes]
    margins = [margin for _, margin in axes]
    if np.any(margins):
        inputs = ops.pad(inputs, [(0, 0), *margins, (0, 0)])
    # Half precision would be rounded at every addition.
    dtype = float_dtype(inputs)
    weights = ops.cast(kernel, dtype)[..., 0]
    total = 0.0
    for row in range(rows):
        for column in range(columns):
            window = tuple(
                slice(first, first + (count - 1) * stride + 1, stride)
                for first, (count, _), stride in zip(
                    (row * dilation_rate[0], column * dilation_rate[1]),
                    axes,
                    strides,
                    strict=True,
                )
            )
            shifted = ops.cast(inputs[(slice(None), *window)], dtype)
            total = total + shifted * weights[row, column]
    return ops.cast(total, inputs.dtype)


def _axis(size, kernel, stride, dilation, padding):
    """Cells of the result along an axis, and those to add before and after the map."""
    window = (kernel - 1) * dilation + 1
    if padding == "valid":
        return (size - window) // stride + 1, (0, 0)
    count = -(-size // stride)
    missing = max(0, (count - 1) * stride + window - size)
    return count, (missing // 2, missing - missing // 2)


def _pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)
