"""Bilinear sampling of maps, every group of channels at coordinates of its own.

The sampler of Volumetric Transformer Networks, section 3.3, and of all layers here
that deform a map.

Convention: a map is `(batch, height, width, channels)`. Coordinates are `(y, x)` in
    cells: `(i, j)` is the centre of the cell in row `i` and column `j`, so that the
    corners of the map are `(0, 0)` and `(height - 1, width - 1)`; elsewhere this is
    called `align_corners=True`. A field is a displacement in cells, `(dy, dx)`, from
    the cell that is to be filled to the place that is read: `V(i) = U(i + G(i))`. Zero
    displacement copies the map; a positive `dy` moves what is seen up.
"""

from typing import Literal

from keras import ops

from keras_attn._checks import check_shape, one_of
from keras_attn.ops.precision import float32_at_least, float_dtype

PADDINGS = ("border", "zeros")


def cell_grid(height, width):
    """Coordinates of the centres of all cells.

    Args:
        height, width: Integers, or integer scalars.

    Returns:
        Float32 tensor `(height, width, 2)` of `(y, x)`, see the module's convention.

    Example:

    >>> cell_grid(2, 3)[1]
    [[1., 0.], [1., 1.], [1., 2.]]
    """
    rows = ops.cast(ops.arange(height, dtype="int32"), "float32")
    columns = ops.cast(ops.arange(width, dtype="int32"), "float32")
    return ops.stack(ops.meshgrid(rows, columns, indexing="ij"), axis=-1)


def warp(features, fields, padding: Literal["border", "zeros"] = "border"):
    """A map displaced by fields, one for every group of channels.

    Volumetric Transformer Networks, section 3.3: `V_k(i) = U_k(i + G_c(i))` with the
    field `c` of the group that channel `k` belongs to.

    Args:
        features: `U`, `(batch, height, width, channels)`.
        fields: `G`, `(batch, height, width, groups, 2)` in cells, see the module's
            convention.
        padding: See `bilinear_sample`.

    Returns:
        `V`, shape and dtype of `features`.

    Raises:
        ValueError: As `bilinear_sample`.

    Example:

    >>> features = np.arange(3.0).reshape((1, 1, 3, 1))
    >>> fields = np.broadcast_to([0.0, 0.5], (1, 1, 3, 1, 2))
    >>> warp(features, fields)[0, 0, :, 0]
    [0.5, 1.5, 2.]
    """
    check_shape("features", features, "(batch, height, width, channels)")
    check_shape("fields", fields, "(batch, height, width, groups, 2)")
    _, height, width, _ = ops.shape(features)
    grid = ops.expand_dims(cell_grid(height, width), 2)
    fields = float32_at_least(fields)
    return bilinear_sample(features, fields + ops.cast(grid, fields.dtype), padding)


def bilinear_sample(
    features, coordinates, padding: Literal["border", "zeros"] = "border"
):
    """Values of a map between its cells, for every group of channels elsewhere.

    Differentiable in both arguments. At the centre of a cell, where bilinear
    interpolation has a kink, the gradient with respect to the coordinates is the one
    towards the following cell; in the last row or column, with border padding, the
    one from the preceding cell. Outside the map border padding has none.

    Args:
        features: `(batch, height, width, channels)`.
        coordinates: `(batch, rows, columns, groups, 2)`, see the module's convention.
            `rows` and `columns` are those of the result. `groups` divides `channels`;
            group `g` is the `g`-th block of consecutive channels. Taken as float32
            at least.
        padding: What lies outside the map: `"border"` (the nearest place on it) or
            `"zeros"` (a map surrounded by cells of zeros).

    Returns:
        `(batch, rows, columns, channels)`, computed in float32 at least, in the dtype
        of `features`.

    Raises:
        ValueError: For shapes that do not fit, or an unknown padding.

    Example:

    >>> features = np.array([[[[0.0, 0.0], [1.0, 10.0]]]])
    >>> coordinates = np.array([[[[[0.0, 0.25], [0.0, 1.0]]]]])
    >>> bilinear_sample(features, coordinates)[0, 0, 0]
    [0.25, 10.]
    """
    _check(features, coordinates, padding)
    features = ops.convert_to_tensor(features)
    coordinates = ops.convert_to_tensor(coordinates)
    dtype = float_dtype(features, coordinates)
    coordinates = ops.cast(coordinates, dtype)
    batch, height, width, channels = ops.shape(features)
    _, rows, columns, groups, _ = ops.shape(coordinates)
    depth = channels // groups
    y, x = coordinates[..., 0], coordinates[..., 1]
    image = ops.reshape(ops.arange(batch, dtype="int32"), (-1, 1, 1, 1))
    group = ops.arange(groups, dtype="int32")
    # A row of this table holds what one cell has for one group.
    table = ops.reshape(features, (-1, depth))
    result = 0.0
    for row, row_weight in _neighbours(y, height, padding):
        for column, column_weight in _neighbours(x, width, padding):
            index = ((image * height + row) * width + column) * groups + group
            # In half precision the four weights would not sum to one.
            corner = ops.cast(ops.take(table, index, axis=0), dtype)
            weight = ops.expand_dims(row_weight * column_weight, -1)
            result = result + corner * weight
    result = ops.cast(result, features.dtype)
    return ops.reshape(result, (-1, rows, columns, channels))


def limit_to_map(fields):
    """Fields shortened along each axis so that they do not lead out of the map.

    Where a displacement is shortened, no gradient passes. A cell at the border whose
    displacement is zero has the full gradient.

    Args:
        fields: `(batch, height, width, groups, 2)`, for a map of this height and width.

    Returns:
        Tensor of the same shape, float32 at least.

    Example:

    >>> limit_to_map(np.array([[[[[0.5, -1.0]], [[0.0, 0.25]]]]]))[0, 0, :, 0]
    [[0., 0.], [0., 0.]]
    """
    fields = float32_at_least(fields)
    _, height, width, _, _ = ops.shape(fields)
    grid = ops.cast(ops.expand_dims(cell_grid(height, width), 2), fields.dtype)
    last = ops.cast(ops.stack([height - 1, width - 1]), fields.dtype)
    return _limited(fields, -grid, last - grid)


def _limited(values, lowest, highest):
    """`clip`, whose gradient at the ends themselves differs between backends."""
    limited = ops.clip(values, lowest, highest)
    return ops.where(ops.equal(limited, values), values, ops.stop_gradient(limited))


def _neighbours(positions, size, padding):
    """The two cells around positions along one axis: their indices and weights."""
    last = ops.cast(size - 1, "int32")
    if padding == "border":
        positions = _limited(positions, 0.0, ops.cast(last, positions.dtype))
        # In the last cell the interval before it, so that its gradient is known.
        lower = _within(_floor(positions), ops.maximum(last - 1, _zero()))
    else:
        lower = _floor(positions)
    fraction = positions - ops.cast(lower, positions.dtype)
    neighbours = []
    for index, weight in ((lower, 1.0 - fraction), (lower + 1, fraction)):
        on_map = _within(index, last)
        if padding == "zeros":
            weight = ops.where(ops.equal(on_map, index), weight, 0.0)
        neighbours.append((on_map, weight))
    return neighbours


def _within(index, last):
    """The nearest index in 0..last.

    Not `clip`, and the constants first: LiteRT's converter takes an integer clip to
    0..6 for the activation ReLU6, which it has for real numbers only.
    """
    return ops.maximum(_zero(), ops.minimum(last, index))


def _zero():
    """A plain 0 counts as int64 where Keras computes in float64."""
    return ops.zeros((), "int32")


def _floor(positions):
    return ops.cast(ops.floor(ops.stop_gradient(positions)), "int32")


def _check(features, coordinates, padding):
    one_of("padding", padding, PADDINGS)
    check_shape("features", features, "(batch, height, width, channels)")
    check_shape("coordinates", coordinates, "(batch, rows, columns, groups, 2)")
    channels, groups = features.shape[-1], coordinates.shape[-2]
    if channels % groups:
        raise ValueError(
            "Expected the number of groups to divide the number of channels. "
            f"Received: groups={groups}, channels={channels}"
        )
