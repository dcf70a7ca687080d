"""Window averages over the valid cells of a feature map."""

from keras import ops

from keras_attn._checks import check_shape, is_integer
from keras_attn.ops.precision import float_dtype


def window_average(inputs, window: int | tuple[int | None, int | None] | None = None):
    """Stride-1 average over a window centred at each cell, valid cells only.

    Class embedding paper, section 3.3: `x_g = (1 / |x_box|) sum_{x in x_box} x`,
    where `x_box` is the part of the window that lies inside the map, so that a
    constant map stays constant up to its borders. The window's sum is separable;
    each axis is one small banded matrix whose rows sum to one. That form needs no
    padding, so all backends agree on borders, and no static size.

    Convention: an even window of `k` cells reaches `(k - 1) // 2` cells before the
    centre and `k // 2` after it ("same" padding).

    Args:
        inputs: Tensor of shape `(batch, height, width, channels)`. Any range.
        window: `(rows, columns)` of the window, an integer for both, or `None` for
            half of the map, `(height // 2, width // 2)`, at least one cell.

    Returns:
        Tensor of the shape and dtype of `inputs`.

    Raises:
        ValueError: If `inputs` is not 4-dimensional or `window` is not positive.

    Example:

    >>> x = keras.ops.reshape(keras.ops.arange(4.0), (1, 1, 4, 1))
    >>> keras.ops.reshape(window_average(x, (1, 3)), (-1,))
    array([0.5, 1. , 2. , 2.5], dtype=float32)
    """
    check_shape("inputs", inputs, "(batch, height, width, channels)")
    rows, columns = standardize_window(window)
    height, width = ops.shape(inputs)[1:3]
    inputs = ops.convert_to_tensor(inputs)
    row_means = _averaging_matrix(height, rows, inputs.dtype)
    column_means = _averaging_matrix(width, columns, inputs.dtype)
    # Not `einsum`, which LiteRT cannot run for a batch of unknown size.
    channels = inputs.shape[-1]
    rows_of_cells = ops.reshape(inputs, (-1, height, width * channels))
    averaged = ops.matmul(row_means, rows_of_cells)
    averaged = ops.reshape(averaged, (-1, height, width, channels))
    return ops.matmul(column_means, averaged)


def standardize_window(window):
    """`window` as a pair `(rows, columns)`; each may be `None` (half of the map)."""
    single = not isinstance(window, (tuple, list))
    both = (window, window) if single else tuple(window)
    if len(both) != 2 or not all(size is None or is_integer(size, 1) for size in both):
        raise ValueError(
            "Expected `window` to be None, a positive integer or a pair of them. "
            f"Received: window={window}"
        )
    return both


def _averaging_matrix(size, window, dtype):
    """`(size, size)` matrix whose row i averages the valid cells around i."""
    if window is None:
        window = ops.cast(ops.maximum(size // 2, 1), "int32")
    cells = ops.arange(size, dtype="int32")
    offset = ops.expand_dims(cells, 0) - ops.expand_dims(cells, 1)
    inside = ops.logical_and(offset >= -((window - 1) // 2), offset <= window // 2)
    inside = ops.cast(inside, float_dtype(dtype))
    return ops.cast(inside / ops.sum(inside, axis=1, keepdims=True), dtype)
