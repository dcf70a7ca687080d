"""Maps that a network can take, from the attention of the class token."""

from typing import Literal

from keras import ops

from keras_attn._checks import one_of
from keras_attn.ops.precision import float32_at_least

AGGREGATES = ("mean", "sum", "max", "min")
NORMALIZATIONS = ("minmax", "scale")


def aggregate_heads(attention, how: Literal["mean", "sum", "max", "min"] = "mean"):
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
    one_of("how", how, AGGREGATES)
    reduce = {"mean": ops.mean, "sum": ops.sum, "max": ops.max, "min": ops.min}[how]
    return reduce(attention, axis=-1, keepdims=True)


def normalize_map(attention_map, how: Literal["minmax", "scale"] = "minmax"):
    """Maps in a range that a network can work with, each image and channel by itself.

    Attention is about 1 / tokens in every cell, and differs so little between cells
    that the epsilon of a batch normalisation would erase it.

    Args:
        attention_map: `(batch, rows, columns, channels)`.
        how: `"minmax"`, linearly to [0, 1], a constant map to zeros; or `"scale"`,
            times the number of cells, so that uniform attention is 1.

    Returns:
        Tensor of the same shape, float32 at least.

    Raises:
        ValueError: For an unknown `how`.

    Example:

    >>> normalize_map(np.array([0.1, 0.2, 0.3]).reshape((1, 1, 3, 1)))[0, 0, :, 0]
    [0., 0.5, 1.]
    """
    one_of("how", how, NORMALIZATIONS)
    attention_map = float32_at_least(attention_map)
    if how == "scale":
        _, rows, columns, _ = ops.shape(attention_map)
        return attention_map * ops.cast(rows * columns, attention_map.dtype)
    lowest = ops.min(attention_map, axis=(1, 2), keepdims=True)
    span = ops.max(attention_map, axis=(1, 2), keepdims=True) - lowest
    constant = ops.equal(span, 0.0)
    # The division is by 1 where there is no span, so that gradients stay finite.
    span = ops.where(constant, ops.ones_like(span), span)
    return ops.where(constant, 0.0, (attention_map - lowest) / span)
