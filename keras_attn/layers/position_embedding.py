import keras
from keras import ops

from keras_attn._checks import pair
from keras_attn.layers._maps import MapLayer
from keras_attn.ops.resize import resize_positions


@keras.saving.register_keras_serializable(package="keras_attn")
class PositionEmbedding(MapLayer):
    """A map of patches as a sequence: class token first, learned positions added.

    Dosovitskiy et al., "An Image is Worth 16x16 Words", equation (1). On a map of
    another size than `grid` the positions are interpolated, see
    `keras_attn.ops.resize.resize_positions`, so that one network takes images of
    many sizes.

    Args:
        grid: Number of rows and columns that the positions are learned for, an integer
            or a pair of them.
        offset: Added to the sizes before positions are interpolated: 0.1 as in DINO's
            own code, 0 as everywhere else.

    Call arguments:
        inputs: A map of patches.

    Input shape: `(batch, rows, columns, width)`; rows and columns may differ from call
        to call, and are known at each.

    Output shape: `(batch, 1 + rows * columns, width)`, row by row, in the layer's
        compute dtype.

    Raises:
        ValueError: For a grid that is not positive, or unknown rows or columns.

    Example:

    >>> layer = PositionEmbedding(14)
    >>> layer(keras.random.normal((2, 6, 28, 192))).shape
    (2, 169, 192)

    Reference: [dosovitskiy2020] arXiv:2010.11929, equation (1).
    """

    def __init__(self, grid, offset=0.0, **kwargs):
        grid = pair("grid", grid, 1)
        super().__init__(**kwargs)
        self.grid = grid
        self.offset = offset
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape):
        width = input_shape[-1]
        initializer = keras.initializers.TruncatedNormal(stddev=0.02)
        self.class_token = self.add_weight(
            name="class_token", shape=(1, width), initializer=initializer
        )
        # Cast after the interpolation, not before it.
        self.positions = self.add_weight(
            name="positions",
            shape=(1 + self.grid[0] * self.grid[1], width),
            initializer=initializer.clone(),
            autocast=False,
        )
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: width})

    def call(self, inputs):
        rows, columns, width = inputs.shape[1:]
        if rows is None or columns is None:
            raise ValueError(
                "Expected a map of a known number of rows and columns when positions "
                f"are added. Received: a map of shape {tuple(inputs.shape)}"
            )
        positions = ops.cast(self.positions_at(rows, columns), self.compute_dtype)
        patches = ops.reshape(inputs, (-1, rows * columns, width))
        first = ops.cast(self.class_token, self.compute_dtype) + positions[:1]
        first = ops.broadcast_to(first[None], (ops.shape(inputs)[0], 1, width))
        return ops.concatenate([first, patches + positions[1:]], axis=1)

    def positions_at(self, rows, columns):
        """Positions of class token and patches, `(1 + rows * columns, width)`."""
        positions = ops.convert_to_tensor(self.positions)
        if (rows, columns) == self.grid:
            return positions
        grid = ops.reshape(positions[1:], (*self.grid, positions.shape[-1]))
        grid = resize_positions(grid, (rows, columns), self.offset)
        grid = ops.reshape(grid, (rows * columns, positions.shape[-1]))
        return ops.concatenate([positions[:1], grid], axis=0)

    def multiply_adds(self, input_shape):
        return 0

    def compute_output_shape(self, input_shape):
        batch, rows, columns, width = input_shape
        unknown = rows is None or columns is None
        return (batch, None if unknown else 1 + rows * columns, width)

    def get_config(self):
        return {**super().get_config(), "grid": self.grid, "offset": self.offset}
