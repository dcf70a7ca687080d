import keras
from keras import ops

from keras_attn._checks import positive_integer
from keras_attn.layers._blocks import register_block
from keras_attn.layers._maps import MapBlock
from keras_attn.layers._sublayers import regularized_dense


@register_block("coordinate_attention")
@keras.saving.register_keras_serializable(package="keras_attn")
class CoordinateAttention(MapBlock):
    """Scales every cell by a gate of its row and a gate of its column.

    Hou et al., "Coordinate Attention for Efficient Mobile Network Design", 2021: with
    `z_h`, the means of the rows, and `z_w`, those of the columns,

    1. `f = activation(BN([z_h; z_w] W1 + b1))`, rows and columns one after the other,
    2. `g_h = sigmoid(f_h Wh + bh)` of the part of the rows, `g_w` that of the columns,
    3. `y(i, j) = x(i, j) * g_h(i) * g_w(j)`, channel by channel.

    Args:
        ratio: The hidden layer has `channels / ratio` units, at least 8.
        activation: Activation of the hidden layer.
        gate_activation: Activation of both gates.
        kernel_regularizer: Regularizer of the three kernels.

    Call arguments:
        inputs: A feature map.
        training: Whether the batch normalisation uses the statistics of the batch.

    Input shape: `(batch, height, width, channels)`.

    Output shape: that of the input, in the layer's compute dtype.

    Raises:
        ValueError: If `ratio` is not a positive integer.

    Example:

    >>> CoordinateAttention()(keras.random.normal((2, 9, 7, 16))).shape
    (2, 9, 7, 16)

    Reference: [hou2021] arXiv:2103.02907.
    """

    def __init__(
        self,
        ratio=32,
        activation="hard_silu",
        gate_activation="sigmoid",
        kernel_regularizer=None,
        **kwargs,
    ):
        ratio = positive_integer("ratio", ratio)
        super().__init__(**kwargs)
        self.ratio = ratio
        self.activation = keras.activations.get(activation)
        self.gate_activation = keras.activations.get(gate_activation)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape):
        channels = input_shape[-1]
        units = self._units(channels)
        self.squeeze = regularized_dense(self, units, None, "squeeze")
        self.squeeze.build((None, None, channels))
        self.normalization = keras.layers.BatchNormalization(
            momentum=0.9, epsilon=1e-5, dtype=self.dtype_policy, name="normalization"
        )
        self.normalization.build((None, None, units))
        self.rows, self.columns = (
            regularized_dense(self, channels, self.gate_activation, name)
            for name in ("rows", "columns")
        )
        self.rows.build((None, None, units))
        self.columns.build((None, None, units))

    def _units(self, channels):
        return max(8, channels // self.ratio)

    def call(self, inputs, training=None):
        height = ops.shape(inputs)[1]
        means = [ops.mean(inputs, axis=2), ops.mean(inputs, axis=1)]
        hidden = self.squeeze(ops.concatenate(means, axis=1))
        hidden = self.activation(self.normalization(hidden, training=training))
        rows = self.rows(hidden[:, :height])[:, :, None]
        columns = self.columns(hidden[:, height:])[:, None]
        return inputs * rows * columns

    def multiply_adds(self, input_shape):
        _, height, width, channels = input_shape
        return 2 * (height + width) * channels * self._units(channels)

    def get_config(self):
        return {
            **super().get_config(),
            "ratio": self.ratio,
            "activation": keras.activations.serialize(self.activation),
            "gate_activation": keras.activations.serialize(self.gate_activation),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }
