import keras
from keras import ops

from keras_attn._checks import positive_integer
from keras_attn.layers._blocks import register_block
from keras_attn.layers._deformation import Deformation
from keras_attn.layers._sublayers import regularized_dense
from keras_attn.ops.precision import float_dtype
from keras_attn.ops.sampling_grids import affine_field

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@register_block("spatial_transformer")
@keras.saving.register_keras_serializable(package="keras_attn")
class SpatialTransformer(Deformation):
    """Moves the whole map by one affine map for each image (STN).

    Jaderberg et al., "Spatial Transformer Networks", with the map's own features to
    decide by: a 1x1 convolution, ReLU, all cells side by side, a dense layer, ReLU, and
    a dense layer that gives the six numbers of equation (1). Outside the map all values
    are zero. See `keras_attn.ops.sampling_grids.affine_field` for the convention.

    A new layer leaves the map as it is, exactly: the last kernel is zero and its bias
    the identity.

    Args:
        channels: Width of the 1x1 convolution.
        units: Width of the hidden dense layer.
        kernel_regularizer: Regularizer of all kernels.

    Call arguments:
        inputs: A feature map.

    Input shape: `(batch, height, width, channels)`, height and width known: the dense
        layer has weights for every cell, so that other sizes need another layer.

    Output shape: a dict `{"features": (batch, height, width, channels), "fields":
        (batch, height, width, 1, 2)}`, the transformed map in the layer's compute dtype
        and the displacements `(dy, dx)` in cells, which may lead out of the map. The
        six numbers and the displacements are float32 at least, under any policy.

    Convention: see `keras_attn.ops.warp`; a displacement leads from a cell of the
        output to the place that it reads.

    Raises:
        ValueError: For widths that are not positive integers, and for a map of unknown
            or of another size.

    Example:

    >>> features = keras.random.normal((2, 14, 14, 32))
    >>> outputs = SpatialTransformer()(features)
    >>> outputs["features"].shape, outputs["fields"].shape
    ((2, 14, 14, 32), (2, 14, 14, 1, 2))

    Reference: [jaderberg2015] arXiv:1506.02025, equation (1).
    """

    outside = "zeros"
    starts_as_identity = True

    def __init__(self, channels=128, units=64, kernel_regularizer=None, **kwargs):
        channels = positive_integer("channels", channels)
        units = positive_integer("units", units)
        super().__init__(**kwargs)
        self.channels = channels
        self.units = units
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape):
        _, height, width, channels = input_shape
        if height is None or width is None:
            raise ValueError(
                "Expected a map of known height and width, as the layer has weights "
                f"for every cell. Received: input_shape={tuple(input_shape)}"
            )
        cells = height * width
        self.reduce = regularized_dense(self, self.channels, "relu", "reduce")
        self.reduce.build((None, channels))
        self.hidden = regularized_dense(self, self.units, "relu", "hidden")
        self.hidden.build((None, cells * self.channels))
        self.affine = keras.layers.Dense(
            len(IDENTITY),
            kernel_initializer="zeros",
            kernel_regularizer=self.kernel_regularizer,
            # Half precision would round displacements to some tenths of a cell.
            dtype=float_dtype(self.compute_dtype),
            name="affine",
        )
        self.affine.build((None, self.units))
        self.affine.bias.assign(IDENTITY)
        self.input_spec = keras.layers.InputSpec(shape=(None, *input_shape[1:]))

    def field(self, inputs):
        _, height, width, _ = inputs.shape
        reduced = self.reduce(inputs)
        flat = ops.reshape(reduced, (-1, height * width * self.channels))
        return affine_field(self.affine(self.hidden(flat)), height, width)

    def multiply_adds(self, input_shape):
        _, height, width, channels = input_shape
        cells = height * width
        dense = cells * self.channels * (channels + self.units)
        return dense + len(IDENTITY) * self.units + super().multiply_adds(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "channels": self.channels,
            "units": self.units,
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }
