"""Poolings of image retrieval: a feature map to one vector."""

import numpy as np
from keras import ops

from keras_attn.ops.precision import float32_at_least

EPSILON = 1e-6
# Regions along the longer side of a map, over those along the shorter one.
EXTRA_REGIONS = (1, 2, 3, 4, 5, 6)
OVERLAP = 0.4


def l2_normalize(vectors, epsilon=EPSILON):
    """`x / (norm of x + epsilon)` over the last axis.

    Its gradient is finite at zero, where it returns zero. Lengths are computed in
    float32 at least, the result has the dtype of `vectors`.

    Example:

    >>> l2_normalize(keras.ops.convert_to_tensor([[3.0, 4.0]]))
    array([[0.5999999, 0.7999999]], dtype=float32)
    """
    exact = float32_at_least(vectors)
    squares = ops.sum(ops.square(exact), axis=-1, keepdims=True)
    # The root of zero has no gradient; 1e-24 is far below the square of `epsilon`.
    norm = ops.sqrt(ops.maximum(squares, 1e-24))
    return ops.cast(exact / (norm + epsilon), vectors.dtype)


def generalized_mean(features, exponent, epsilon=EPSILON):
    """GeM, `(mean over cells of max(x, epsilon)^p)^(1/p)`.

    Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", eq.
    (3): the mean at `p = 1`, the maximum for `p` to infinity. Computed in float32
    relative to the largest cell, so that no power overflows.

    Args:
        features: `(batch, height, width, channels)`. Values below `epsilon`, so all
            negative ones, count as `epsilon`.
        exponent: `p`, positive: a number, or a tensor that broadcasts to channels.
        epsilon: Smallest value, positive.

    Returns:
        `(batch, channels)` in the dtype of `features`.

    Example:

    >>> x = keras.ops.reshape(keras.ops.arange(1.0, 5.0), (1, 2, 2, 1))
    >>> generalized_mean(x, 1.0), generalized_mean(x, 100.0)
    (array([[2.5]], dtype=float32), array([[3.9449...]], dtype=float32))
    """
    x = ops.maximum(float32_at_least(features), epsilon)
    exponent = ops.cast(exponent, x.dtype)
    # The mean is homogeneous: its value and gradients do not depend on the scale.
    scale = ops.stop_gradient(ops.max(x, axis=(1, 2), keepdims=True))
    mean = ops.mean(ops.power(x / scale, exponent), axis=(1, 2))
    return ops.cast(scale[:, 0, 0] * ops.power(mean, 1.0 / exponent), features.dtype)


def cross_dimensional_mean(features):
    """CroW: a sum of cells, weighted by where responses are and how rare they are.

    Kalantidis et al., "Cross-dimensional Weighting for Aggregated Deep Convolutional
    Features", with `X >= 0`. A cell weighs `S = sqrt(S' / ||S'||_2)` for the sum `S'`
    of its channels, a channel `log(sum_k Q_k / Q_k)` for the share `Q_k` of its cells
    that are not zero; a channel without any weighs nothing.

    Args:
        features: `(batch, height, width, channels)`, not negative. A cell whose
            channels add up to less than zero weighs nothing.

    Returns:
        `(batch, channels)` in the dtype of `features`, not normalised.

    Example:

    >>> cross_dimensional_mean(keras.random.uniform((2, 9, 7, 16))).shape
    (2, 16)
    """
    x = float32_at_least(features)
    sums = ops.maximum(ops.sum(x, axis=-1, keepdims=True), 0.0)
    squares = ops.sum(ops.square(sums), axis=(1, 2), keepdims=True)
    shares = sums / ops.sqrt(ops.maximum(squares, 1e-24))
    # The root of zero has no gradient.
    present = shares > 0
    cell_weights = ops.sqrt(ops.where(present, shares, 1.0))
    cell_weights = ops.where(present, cell_weights, 0.0)
    used = ops.mean(ops.cast(ops.not_equal(x, 0.0), x.dtype), axis=(1, 2))
    total = ops.sum(used, axis=-1, keepdims=True)
    known = ops.where(used > 0, used, 1.0)
    channel_weights = ops.log(ops.maximum(total, 1e-24) / known)
    channel_weights = ops.where(used > 0, channel_weights, 0.0)
    pooled = ops.sum(x * cell_weights, axis=(1, 2)) * channel_weights
    return ops.cast(pooled, features.dtype)


def regional_maximum(features, levels=3, epsilon=EPSILON):
    """R-MAC: the sum of the normalised maxima of the map and of its regions.

    Tolias et al., "Particular object retrieval with integral max-pooling of CNN
    activations", section 3.2, as Radenovic et al. published it.

    Args:
        features: `(batch, height, width, channels)` of a static height and width.
        levels: Number of scales, see `pooling_regions`.
        epsilon: Added to lengths before dividing by them.

    Returns:
        `(batch, channels)` in the dtype of `features`, not normalised.

    Raises:
        ValueError: If the size of the map is not static.

    Example:

    >>> regional_maximum(keras.random.uniform((2, 9, 7, 16))).shape
    (2, 16)
    """
    height, width = fixed_size(features.shape)
    maxima = [ops.max(features, axis=(1, 2))]
    for y0, x0, y1, x1 in pooling_regions(height, width, levels):
        maxima.append(ops.max(features[:, y0:y1, x0:x1], axis=(1, 2)))
    normalized = l2_normalize(float32_at_least(ops.stack(maxima, axis=1)), epsilon)
    return ops.cast(ops.sum(normalized, axis=1), features.dtype)


def pooling_regions(height, width, levels=3):
    """The square regions of R-MAC, without the whole map that is one more.

    At level `l` their side is `2 min(height, width) / (l + 1)`, rounded down; `l` of
    them lie along the shorter side, and along the longer as many more as bring the
    overlap of neighbours nearest to 40 % at level 1. A square map has 1 + 4 + 9.

    Convention: boxes are (y0, x0, y1, x1) in cells, half-open.

    Args:
        height, width: Size of the map in cells.
        levels: Number of scales; those whose regions have no cell are left out.

    Returns:
        List of tuples `(y0, x0, y1, x1)`.

    Example:

    >>> pooling_regions(4, 4, levels=2)[1:]
    [(0, 0, 2, 2), (0, 2, 2, 4), (2, 0, 4, 2), (2, 2, 4, 4)]
    """
    side = min(height, width)
    extra = 0 if height == width else _extra_regions(side, max(height, width))
    regions = []
    for level in range(1, levels + 1):
        size = 2 * side // (level + 1)
        if size == 0:
            break
        rows = _starts(height, size, level + (extra if height > width else 0))
        columns = _starts(width, size, level + (extra if width > height else 0))
        regions += [(y, x, y + size, x + size) for y in rows for x in columns]
    return regions


def fixed_size(shape):
    """Height and width of maps of this shape.

    Raises:
        ValueError: If one of them is unknown.
    """
    height, width = shape[1:3]
    if not isinstance(height, int) or not isinstance(width, int):
        raise ValueError(
            "Expected maps of a fixed height and width, since the regions depend on "
            f"them. Received: maps of shape {tuple(shape)}"
        )
    return height, width


def _extra_regions(side, longer):
    # In float32 and by reciprocals, as the published code computes: where two numbers
    # of regions are equally good, as for 11 x 3 cells, rounding decides between them.
    step = (longer - side) * (1 / np.asarray(EXTRA_REGIONS, "float32"))
    overlap = (side**2 - side * step) / side**2
    return EXTRA_REGIONS[np.argmin(np.abs(overlap - np.float32(OVERLAP)))]


def _starts(length, size, count):
    """First cells of `count` windows of `size` cells, evenly over `length` cells."""
    if count == 1:
        return [0]
    centre = size // 2 - 1
    step = np.float32((length - size) / (count - 1))
    starts = np.floor(centre + np.arange(count, dtype="float32") * step) - centre
    return starts.astype(int).tolist()
