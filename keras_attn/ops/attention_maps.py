"""From the attention of the class token to maps that a network can take."""

from keras import ops

from keras_attn._checks import pair

AGGREGATES = ("mean", "sum", "max", "min")
NORMALIZATIONS = ("minmax", "scale")
INTERPOLATIONS = ("nearest", "bilinear")


def aggregate_heads(attention, how="mean"):
    """One map from those of all heads.

    Attention-masked residuals, section 3: "mean" is how the authors of DINO combine
    heads; the sum differs from it by the number of heads only.

    Args:
        attention: `(..., heads)`.
        how: `"mean"`, `"sum"`, `"max"` or `"min"`.

    Returns:
        `(..., 1)` in the same dtype.

    Raises:
        ValueError: For an unknown `how`.

    Example:

    >>> aggregate_heads(np.array([[1.0, 2.0, 6.0]]))
    [[3.]]
    """
    _check("how", how, AGGREGATES)
    reduce = {"mean": ops.mean, "sum": ops.sum, "max": ops.max, "min": ops.min}[how]
    return reduce(attention, axis=-1, keepdims=True)


def normalize_map(attention_map, how="minmax"):
    """Maps in a range that a network can work with, every image and channel alone.

    Attention is about 1 / tokens in every cell, and differs so little between cells
    that the epsilon of a batch normalisation would erase it.

    Args:
        attention_map: `(batch, rows, columns, channels)`.
        how: `"minmax"`, linearly to [0, 1], a constant map to zeros; or `"scale"`,
            times the number of cells, so that uniform attention is 1.

    Returns:
        Float32 tensor of the same shape.

    Raises:
        ValueError: For an unknown `how`.

    Example:

    >>> normalize_map(np.array([0.1, 0.2, 0.3]).reshape((1, 1, 3, 1)))[0, 0, :, 0]
    [0., 0.5, 1.]
    """
    _check("how", how, NORMALIZATIONS)
    attention_map = ops.cast(attention_map, "float32")
    if how == "scale":
        _, rows, columns, _ = ops.shape(attention_map)
        return attention_map * ops.cast(rows * columns, "float32")
    lowest = ops.min(attention_map, axis=(1, 2), keepdims=True)
    span = ops.max(attention_map, axis=(1, 2), keepdims=True) - lowest
    constant = ops.equal(span, 0.0)
    # The division is by 1 where there is no span, so that gradients stay finite.
    span = ops.where(constant, ops.ones_like(span), span)
    return ops.where(constant, 0.0, (attention_map - lowest) / span)


def upsample(attention_map, factor, how="nearest"):
    """Maps with `factor` times as many rows and columns.

    Convention: cells are areas; the map covers the same part of the image before and
        after. `"nearest"` repeats every cell, `"bilinear"` interpolates between the
        centres of cells and continues the border.

    Args:
        attention_map: `(batch, rows, columns, channels)`.
        factor: Positive integer, the patch size for a map as large as the image; or
            `(rows, columns)` of them.
        how: `"nearest"` or `"bilinear"`.

    Returns:
        Tensor of the same dtype.

    Raises:
        ValueError: For an unknown `how` or a factor that is not positive.

    Example:

    >>> upsample(np.array([[[[0.0], [1.0]]]]), (1, 2))[0, 0, :, 0]
    [0., 0., 1., 1.]
    """
    _check("how", how, INTERPOLATIONS)
    factors = pair("factor", factor, 1)
    attention_map = ops.convert_to_tensor(attention_map)
    for axis, repeats in ((1, factors[0]), (2, factors[1])):
        if how == "nearest":
            attention_map = ops.repeat(attention_map, repeats, axis=axis)
        else:
            attention_map = _linear(attention_map, repeats, axis)
    return attention_map


def _linear(values, factor, axis):
    """Linear interpolation between the centres of cells along axis 1 or 2."""
    first = (slice(None),) * axis
    before = ops.concatenate(
        [values[(*first, slice(None, 1))], values[(*first, slice(None, -1))]], axis=axis
    )
    after = ops.concatenate(
        [values[(*first, slice(1, None))], values[(*first, slice(-1, None))]], axis=axis
    )
    phases = []
    for phase in range(factor):
        shift = (phase + 0.5) / factor - 0.5
        neighbour = before if shift < 0 else after
        phases.append((1 - abs(shift)) * values + abs(shift) * neighbour)
    shape = list(ops.shape(values))
    shape[axis] = shape[axis] * factor
    return ops.reshape(ops.stack(phases, axis=axis + 1), shape)


def _check(name, value, known):
    if value not in known:
        raise ValueError(
            f"Expected `{name}` to be one of {known}. Received: {name}={value!r}"
        )
