"""Resizing of maps, images and position embeddings, the same on every backend."""

from typing import Literal

import keras
import numpy as np
from keras import ops

from keras_attn._checks import one_of, pair
from keras_attn.ops.precision import float32_at_least, float_dtype

INTERPOLATIONS = ("nearest", "bilinear")

SHARPNESS = -0.75


def upsample(
    maps, factor: int | tuple[int, int], how: Literal["nearest", "bilinear"] = "nearest"
):
    """Maps with `factor` times as many rows and columns.

    Convention: cells are areas; the map covers the same part of the image before and
        after. `"nearest"` repeats every cell, `"bilinear"` interpolates between the
        centres of cells and continues the border.

    Args:
        maps: `(batch, rows, columns, channels)`.
        factor: Positive integer, the patch size for a map as large as the image; or
            `(rows, columns)` of them.
        how: `"nearest"` or `"bilinear"`.

    Returns:
        Tensor of the same dtype; bilinear interpolation makes floats of integers.

    Raises:
        ValueError: For an unknown `how` or a factor that is not positive.

    Example:

    >>> upsample(np.array([[[[0.0], [1.0]]]]), (1, 2))[0, 0, :, 0]
    [0., 0., 1., 1.]
    """
    one_of("how", how, INTERPOLATIONS)
    factors = pair("factor", factor, 1)
    maps = ops.convert_to_tensor(maps)
    if how == "nearest":
        return ops.repeat(ops.repeat(maps, factors[0], axis=1), factors[1], axis=2)
    _, rows, columns, _ = ops.shape(maps)
    return resize_bilinear(maps, (rows * factors[0], columns * factors[1]))


def resize_bilinear(maps, size):
    """Bilinear resize that keeps the map's outer edges, not its corner cells' centres.

    As products with matrices, so that sizes may be unknown; `ops.image.resize` takes
    integers only.

    Args:
        maps: `(batch, height, width, channels)`.
        size: `(rows, columns)`, not smaller than the maps.

    Returns:
        Tensor `(batch, rows, columns, channels)` of the same dtype, float32 for
        integers.

    Example:

    >>> resize_bilinear(np.array([[[[0.0], [4.0]]]]), (1, 4))[0, 0, :, 0]
    [0., 1., 3., 4.]
    """
    maps = ops.convert_to_tensor(maps)
    if not keras.backend.is_float_dtype(maps.dtype):
        maps = ops.cast(maps, "float32")
    _, height, width, channels = ops.shape(maps)
    dtype = float_dtype(maps)
    rows = ops.cast(_linear_weights(height, size[0], dtype), maps.dtype)
    columns = ops.cast(_linear_weights(width, size[1], dtype), maps.dtype)
    maps = ops.matmul(rows, ops.reshape(maps, (-1, height, width * channels)))
    return ops.matmul(columns, ops.reshape(maps, (-1, size[0], width, channels)))


def resize_bicubic(images, size):
    """Bicubic resize whose corner pixels' centres stay in the corners.

    The resize of the early-exit experiments that followed the AnchorNet paper
    ("align corners"): output pixel `i` lies at `i (n - 1) / (m - 1)` among `n` input
    pixels and is a weighted sum of the four around it, those outside the image
    repeating the border. Cubic convolution with `a = -0.75`, without antialiasing, as
    PyTorch's `interpolate(mode="bicubic", align_corners=True)`, and the same on every
    backend.

    Args:
        images: `(batch, height, width, channels)`; height and width are known.
        size: `(rows, columns)` of the result.

    Returns:
        `(batch, rows, columns, channels)` in float32 at least, not clipped: cubic
        convolution overshoots at edges.

    Example:

    >>> resize_bicubic(np.arange(4.0).reshape((1, 1, 4, 1)), (1, 7))[0, 0, ::2, 0]
    [0., 1., 2., 3.]
    """
    images = float32_at_least(images)
    height, width, channels = images.shape[1:]
    rows = ops.cast(_weights(height, size[0]), images.dtype)
    columns = ops.cast(_weights(width, size[1]), images.dtype)
    images = ops.reshape(images, (-1, height, width * channels))
    images = ops.reshape(ops.matmul(rows, images), (-1, size[0], width, channels))
    return ops.matmul(columns, images)


def resize_positions(grid, size, offset=0.0):
    """Position embeddings of a grid of patches, for a grid of another size.

    Bicubic, between the centres of the patches, without antialiasing, as PyTorch's
    `interpolate(mode="bicubic", align_corners=False)`.

    Args:
        grid: `(height, width, channels)`; the sizes are known.
        size: `(rows, columns)` of the result.
        offset: Added to the sizes before the scale is computed. The code of DINO adds
            0.1, which moves all patches but the first a little.

    Returns:
        `(rows, columns, channels)` in float32 at least.

    Example:

    >>> resize_positions(np.arange(4.0).reshape((1, 4, 1)), (1, 2))[0, :, 0]
    [0.5, 2.5]
    """
    grid = float32_at_least(grid)
    height, width, channels = grid.shape
    rows = ops.cast(_centred_weights(height, size[0], offset), grid.dtype)
    columns = ops.cast(_centred_weights(width, size[1], offset), grid.dtype)
    grid = ops.reshape(grid, (height, width * channels))
    grid = ops.reshape(ops.matmul(rows, grid), (size[0], width, channels))
    return ops.matmul(columns, grid)


def _linear_weights(inputs, outputs, dtype):
    """Matrix `(outputs, inputs)` of one axis; every row sums to 1."""
    scale = ops.cast(inputs, dtype) / ops.cast(outputs, dtype)
    cells, places = (
        ops.cast(ops.arange(size, dtype="int32"), dtype) for size in (inputs, outputs)
    )
    places = ops.clip((places + 0.5) * scale - 0.5, 0.0, ops.cast(inputs - 1, dtype))
    distances = ops.expand_dims(places, 1) - cells
    return ops.maximum(1.0 - ops.abs(distances), 0.0)


def _weights(inputs, outputs):
    """Matrix `(outputs, inputs)` of one axis, corners in corners."""
    return _cubic_weights(
        np.arange(outputs) * ((inputs - 1) / max(outputs - 1, 1)), inputs
    )


def _centred_weights(inputs, outputs, offset):
    """Matrix `(outputs, inputs)` of one axis, pixels being areas, not points."""
    scale = inputs / (outputs + offset)
    return _cubic_weights((np.arange(outputs) + 0.5) * scale - 0.5, inputs)


def _cubic_weights(positions, inputs):
    """Matrix `(positions, inputs)`; every row sums to 1."""
    first = np.floor(positions).astype(int)
    matrix = np.zeros((len(positions), inputs))
    for shift in (-1, 0, 1, 2):
        neighbours = np.clip(first + shift, 0, inputs - 1)
        weights = _cubic(np.abs(positions - (first + shift)))
        np.add.at(matrix, (np.arange(len(positions)), neighbours), weights)
    return matrix


def _cubic(x):
    """Keys' cubic convolution kernel for distances `x >= 0`."""
    a = SHARPNESS
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
