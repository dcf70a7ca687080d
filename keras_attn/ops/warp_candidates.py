"""Fields as expected displacements over the places that a cell could be filled from."""

from keras import ops

from keras_attn.ops.precision import float32_at_least
from keras_attn.ops.sampling import cell_grid


def expected_displacement(responses, residuals, window, temperature):
    """Place that each cell is filled from, as the mean over a window of candidates.

    Volumetric Transformer Networks, equations (1) and (2): with the candidates `j` in
    a window around the cell `i`,

    - `P(i, j) = softmax over j of (S(j) + E(i, j)) / beta`, `S = U_max + U_avg`,
    - `G(i) = sum over j of P(i, j) (j - i)`.

    Candidates outside the map have no probability, so that `i + G(i)` never leaves the
    map. The window stays centred on the cell: where it is cut off, equal responses
    pull inwards.

    Args:
        responses: `S`, `(maps, height, width)`.
        residuals: `E`, `(maps, height, width, window * window)`, the candidates row by
            row from the upper left one.
        window: Odd number of rows and columns of the window.
        temperature: Positive number `beta`; the larger, the more evenly the candidates
            are weighted.

    Returns:
        `G`, `(maps, height, width, 2)`, `(dy, dx)` in cells as described in
        `keras_attn.ops.sampling`.

    Example:

    >>> responses = np.array([[[0.0, 0.0, 90.0]]])
    >>> expected_displacement(responses, np.zeros((1, 1, 3, 9)), 3, 1.0)[0, 0]
    [[0., 0.5], [0., 1.], [0., 0.]]
    """
    radius = window // 2
    responses = float32_at_least(responses)
    dtype = responses.dtype
    _, height, width = ops.shape(responses)
    # Maps last, so that one row of the table is what all maps have at a place: a gather
    # of rows is faster than one of numbers, or than as many slices as candidates.
    padded = ops.pad(
        ops.transpose(responses, (1, 2, 0)),
        ((radius, radius), (radius, radius), (0, 0)),
        constant_values=-float("inf"),
    )
    columns = width + 2 * radius
    table = ops.reshape(padded, ((height + 2 * radius) * columns, -1))
    corner = _flat_index(height, width, columns)
    offset = _flat_index(window, window, columns)
    candidates = ops.take(table, ops.expand_dims(corner, 1) + offset, axis=0)
    candidates = ops.transpose(candidates, (2, 0, 1))
    candidates = ops.reshape(candidates, (-1, height, width, window * window))
    logits = (candidates + ops.cast(residuals, dtype)) / temperature
    probabilities = ops.softmax(logits, axis=-1)
    displacements = ops.reshape(cell_grid(window, window) - radius, (-1, 2))
    return ops.matmul(probabilities, ops.cast(displacements, dtype))


def _flat_index(height, width, columns):
    """Row by row, where the cells of a map lie in one with more columns."""
    rows = ops.expand_dims(ops.arange(height, dtype="int32"), 1)
    return ops.reshape(rows * columns + ops.arange(width, dtype="int32"), (-1,))
