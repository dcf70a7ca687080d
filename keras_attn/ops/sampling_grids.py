"""Fields of the samplers that VTN is compared with: one for all channels.

Spatial transformers, saliency-based sampling (SSN) and attention-based sampling (ASN)
all fill a map by reading another one elsewhere; they differ in the choice of the place.
The sampling itself is in `keras_attn.ops.sampling`.

Convention: that of `keras_attn.ops.sampling`. Fields are displacements `(dy, dx)` in
    cells from the cell that is filled to the place that is read, of shape
    `(batch, height, width, 1, 2)` in float32 at least; zero copies the map. Where a
    paper has coordinates in -1..1 (or 0..1), the ends are the centres of the first and
    of the last cell, `align_corners=True`: cell `i` of `n` is at
    `-1 + 2 i / (n - 1)`. Along an axis of a single cell nothing moves.
"""

import math

from keras import ops

from keras_attn._checks import check_shape, is_number, pair
from keras_attn.ops.precision import float32_at_least
from keras_attn.ops.sampling import limit_to_map

# SSN's published grid of 31 cells has a Gaussian of 13 cells at half maximum.
HALF_MAXIMUM = 13 / 31
# Below this weight a cell counts as out of reach; its square is still a float32.
LEAST_WEIGHT = 1e-18
# ASN: the largest density in each of the rounds in which it is spread evenly.
LARGEST_DENSITIES = (4.0, math.inf, math.inf, math.inf, math.inf)


def affine_field(parameters, height, width):
    """The field of an affine map of the plane.

    Jaderberg et al., "Spatial Transformer Networks", equation (1): the cell at `(x, y)`
    reads the place `(a11 x + a12 y + a13, a21 x + a22 y + a23)`, both in -1..1 from
    the first to the last cell. Computed as the difference to the identity, so that
    `(1, 0, 0, 0, 1, 0)` gives exactly zero.

    Args:
        parameters: `(batch, 6)`: `a11, a12, a13, a21, a22, a23`. Any range. As in the
            paper, the first row gives `x`.
        height, width: Integers, or integer scalars: the size of the map.

    Returns:
        Field `(batch, height, width, 1, 2)`, see the module's convention.

    Raises:
        ValueError: If there are not six parameters.

    Example:

    >>> affine_field(np.array([[1.0, 0.0, 1.0, 0.0, 1.0, 0.0]]), 1, 5)[0, 0, :, 0, 1]
    [2., 2., 2., 2., 2.]
    """
    check_shape("parameters", parameters, "(batch, 6)")
    parameters = float32_at_least(parameters)
    dtype = parameters.dtype
    change = parameters - ops.cast([1.0, 0.0, 0.0, 0.0, 1.0, 0.0], dtype)
    change = ops.expand_dims(ops.expand_dims(change, 1), 1)
    y = ops.reshape(_centred(height, dtype), (1, -1, 1))
    x = ops.reshape(_centred(width, dtype), (1, 1, -1))
    dx = change[..., 0] * x + change[..., 1] * y + change[..., 2]
    dy = change[..., 3] * x + change[..., 4] * y + change[..., 5]
    return _field(dy * _half(height, dtype), dx * _half(width, dtype))


def saliency_field(saliency, fwhm=None, padding=None):
    """The field that draws every cell towards what is salient around it.

    Recasens et al., "Learning to Zoom: a Saliency-Based Sampling Layer for Neural
    Networks", section 3, for saliency `S` and a Gaussian `k`:

        y(i) = sum over j of S(j) k(i, j) y_j / sum over j of S(j) k(i, j),

    and the same for `x`. As in the published code, `j` also runs over a border of cells
    around the map, with the saliency of the nearest cell and with coordinates that
    continue; `k` reaches as far as the border is wide; the result is limited to the
    map. The Gaussian is separable, so that each axis is one small matrix, border
    included: nothing is padded and no kernel of twice the map's size is convolved.

    Uniform saliency gives the identity, thanks to the border. A cell whose whole
    window has no saliency stays where it is.

    Args:
        saliency: `(batch, height, width)`, non-negative, of a sum around one.
        fwhm: Full width of the Gaussian at half its maximum, in cells: a positive
            number, a pair (rows, columns), or `None` for 13/31 of the map's size, 5.9
            of 14 cells. In a map that is not square, each axis has a width of its own.
        padding: Cells of border on each side: an integer, a pair, or `None` for one
            less than the map's size, 13 of 14 cells, a kernel of 27.

    Returns:
        Field `(batch, height, width, 1, 2)`, see the module's convention.

    Raises:
        ValueError: For arguments outside these ranges.

    Example:

    >>> saliency = np.array([[[0.1, 0.1, 0.1, 0.1, 0.6]]])
    >>> np.round(saliency_field(saliency)[0, 0, :, 0, 1], 2)
    [0., 0.02, 0.32, 0.66, 0.]
    """
    fwhm, padding = check_gaussian(fwhm, padding)
    check_shape("saliency", saliency, "(batch, height, width)")
    saliency = float32_at_least(saliency)
    _, height, width = ops.shape(saliency)
    row_sums, row_moments = _gaussian_matrices(
        height, fwhm[0], padding[0], saliency.dtype
    )
    column_sums, column_moments = _gaussian_matrices(
        width, fwhm[1], padding[1], saliency.dtype
    )
    along_columns = ops.matmul(saliency, ops.transpose(column_sums))
    moments_along_columns = ops.matmul(saliency, ops.transpose(column_moments))
    weight = ops.matmul(row_sums, along_columns)
    weight = ops.maximum(weight, LEAST_WEIGHT)
    dy = ops.matmul(row_moments, along_columns) / weight
    dx = ops.matmul(row_sums, moments_along_columns) / weight
    return limit_to_map(_field(dy, dx))


def attention_field(attention):
    """The field that gives attended rows and columns more room.

    Zheng et al., "Looking for the Devil in the Details" (TASN), section 3.2, with the
    details of the published sampler. The densities of rows and columns are the maxima
    of the attention along the other axis, scaled to a mean of one. In each of 5 rounds
    they are limited to the smaller of both maxima, in the first round also to 4, and
    what is cut off is spread evenly. The cumulative density `c_0 = 0`, `c_j = c_{j-1}
    + density of row j` leads from the centre of the first row to that of the last; row
    `i` of the result reads the place where it reaches the share `i / height`, and
    the same for columns.

    Properties of the published sampler that are kept: the density of the first row
    counts for nothing; the axis with the lower peak limits the other, so that a whole
    row of attention moves nothing; and uniform attention gives the coordinates
    `-1 + 2 i / height`, not the identity: what is seen grows by `height / (height - 1)`
    out of the top left corner. Attention that is zero everywhere counts as uniform.

    Args:
        attention: `(batch, height, width)`. Negative values count as zero; the scale
            does not matter.

    Returns:
        Field `(batch, height, width, 1, 2)`, see the module's convention.

    Raises:
        ValueError: If `attention` is not 3-dimensional.

    Example:

    >>> attention_field(np.ones((1, 1, 4)))[0, 0, :, 0, 1]
    [0., -0.25, -0.5, -0.75]
    """
    check_shape("attention", attention, "(batch, height, width)")
    attention = ops.maximum(float32_at_least(attention), 0.0)
    rows = _density(ops.max(attention, axis=2))
    columns = _density(ops.max(attention, axis=1))
    for largest in LARGEST_DENSITIES:
        peaks = [ops.max(axis, axis=1, keepdims=True) for axis in (rows, columns)]
        limit = ops.minimum(ops.minimum(*peaks), largest)
        rows, columns = _spread(rows, limit), _spread(columns, limit)
    dy = _inverse_of_cumulative(rows) - _positions(ops.shape(rows)[1], rows.dtype)
    dx = _inverse_of_cumulative(columns) - _positions(
        ops.shape(columns)[1], columns.dtype
    )
    dy, dx = ops.expand_dims(dy, 2), ops.expand_dims(dx, 1)
    return _field(dy + ops.zeros_like(dx), dx + ops.zeros_like(dy))


def trilinear_attention(features, scale=7.0):
    """An attention map for every channel, from the channels that it goes with.

    TASN paper, section 3.1: with features `X`, one row of all cells for every channel,
    `M = softmax(softmax(s X) X^T) X`. The inner softmax is over the cells, the outer
    one over the channels of a row; every map is a weighted mean of channels.

    Args:
        features: `X`, `(batch, height, width, channels)`, after a ReLU in the paper.
        scale: `s`; 7 in the authors' first code, 2 in their later one.

    Returns:
        `M`, `(batch, height, width, channels)`.

    Raises:
        ValueError: If `features` is not 4-dimensional.

    Example:

    >>> features = np.array([[[[1.0, 0.0], [0.0, 1.0]]]])
    >>> np.round(trilinear_attention(features)[0, 0, :, 0], 3)
    [0.731, 0.269]
    """
    flat, relations = _relations(features, scale)
    maps = ops.matmul(flat, ops.transpose(relations, (0, 2, 1)))
    return ops.reshape(maps, ops.shape(features))


def structure_map(features, scale=7.0):
    """The sum of the trilinear attention over its channels, at half the cost.

    Args:
        features, scale: See `trilinear_attention`.

    Returns:
        `(batch, height, width)`, float32 at least.

    Raises:
        ValueError: If `features` is not 4-dimensional.
    """
    flat, relations = _relations(features, scale)
    total = ops.matmul(flat, ops.expand_dims(ops.sum(relations, axis=1), -1))
    _, height, width, _ = ops.shape(features)
    return ops.reshape(total, (-1, height, width))


def check_gaussian(fwhm, padding):
    """`fwhm` and `padding` as pairs (rows, columns), each of which may be `None`.

    Raises:
        ValueError: If they are out of the range that `saliency_field` takes.
    """
    widths = tuple(fwhm) if isinstance(fwhm, (tuple, list)) else (fwhm, fwhm)
    if len(widths) != 2 or not all(_is_width(width) for width in widths):
        raise ValueError(
            "Expected `fwhm` to be None, a positive number or a pair of them. "
            f"Received: fwhm={fwhm!r}"
        )
    if padding is None:
        return widths, (None, None)
    return widths, pair("padding", padding, minimum=1)


# ---- parts -----------------------------------------------------------------------


def _is_width(width):
    return width is None or (is_number(width) and 0 < width < math.inf)


def _field(dy, dx):
    """Displacements `(batch, height, width)` of both axes as the field of one group."""
    return ops.expand_dims(ops.stack([dy, dx], axis=-1), 3)


def _positions(size, dtype):
    return ops.cast(ops.arange(size, dtype="int32"), dtype)


def _half(size, dtype):
    """Cells from the middle of an axis to its ends."""
    return ops.cast(size - 1, dtype) / 2


def _centred(size, dtype):
    """The cells of an axis in -1..1; a single one is at 0."""
    half = _half(size, dtype)
    return (_positions(size, dtype) - half) / ops.maximum(half, 0.5)


def _gaussian_matrices(size, fwhm, padding, dtype):
    """Weights of a cell's window, and the same times the distance, `(n, n)`."""
    padding = size - 1 if padding is None else padding
    fwhm = ops.cast(size, dtype) * HALF_MAXIMUM if fwhm is None else fwhm
    cells = ops.arange(size, dtype="int32")
    padded = ops.arange(size + 2 * padding, dtype="int32") - padding
    distance = ops.cast(padded - ops.expand_dims(cells, 1), dtype)
    gaussian = ops.exp(-4 * math.log(2) * ops.square(distance / fwhm))
    reached = ops.abs(distance) <= ops.cast(padding, dtype)
    gaussian = ops.where(reached, gaussian, 0.0)
    nearest = ops.expand_dims(ops.clip(padded, 0, size - 1), 1)
    replicated = ops.cast(ops.equal(nearest, cells), dtype)
    return (
        ops.matmul(gaussian, replicated),
        ops.matmul(gaussian * distance, replicated),
    )


def _density(maxima):
    """Scaled to a mean of one."""
    maxima = maxima + LEAST_WEIGHT
    return maxima / ops.mean(maxima, axis=1, keepdims=True)


def _spread(density, limit):
    """Cuts off density above a limit and spreads it evenly over all cells."""
    density = ops.minimum(density, limit)
    return density + 1.0 - ops.mean(density, axis=1, keepdims=True)


def _inverse_of_cumulative(density):
    """Cells where the cumulative density reaches equal steps, `(batch, n)`."""
    # The interval that ends in cell j has the density of that cell.
    density = density[:, 1:]
    ends = ops.cumsum(density, axis=1)
    starts = ends - density
    size = ops.shape(density)[1] + 1
    dtype = density.dtype
    steps = ops.expand_dims(_positions(size, dtype) / ops.cast(size, dtype), 1)
    targets = steps * ops.expand_dims(ops.sum(density, axis=1, keepdims=True), 1)
    # Each interval counts with the share of it that lies below the target.
    width = ops.expand_dims(ops.maximum(density, LEAST_WEIGHT), 1)
    shares = (targets - ops.expand_dims(starts, 1)) / width
    return ops.sum(ops.clip(shares, 0.0, 1.0), axis=2)


def _relations(features, scale):
    """Features with flat cells, and how much each channel draws on every other."""
    check_shape("features", features, "(batch, height, width, channels)")
    features = float32_at_least(features)
    _, height, width, channels = ops.shape(features)
    flat = ops.reshape(features, (-1, height * width, channels))
    where = ops.softmax(scale * flat, axis=1)
    relations = ops.matmul(ops.transpose(where, (0, 2, 1)), flat)
    return flat, ops.softmax(relations, axis=2)
