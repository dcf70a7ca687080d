import keras
from keras import ops

from keras_attn._checks import positive_integer
from keras_attn.layers._blocks import register_block
from keras_attn.layers._maps import MapBlock
from keras_attn.layers._sublayers import regularized_dense


@register_block("squeeze_excitation", gate_activation="sigmoid")
@keras.saving.register_keras_serializable(package="keras_attn")
class SqueezeExcitation(MapBlock):
    """Scales every channel by a gate computed from all channels' means.

    Hu et al., "Squeeze-and-Excitation Networks", 2017; the default gate, a hard
    sigmoid, is that of AnchorNet's bottlenecks, the paper's is a sigmoid:
    `x * gate(relu(mean(x) W1 + b1) W2 + b2)`, with the mean over all cells.

    The gate sees the whole map, so it widens no cell's window but scales all cells
    by the same factors; `keras_attn.graph.receptive_field` leaves it out and notes it.

    Args:
        units: Width of the hidden layer, at least 1. `None`: the number of channels
            divided by `ratio`, and at least 1.
        ratio: See `units`.
        activation: Activation of the hidden layer.
        gate_activation: Activation of the gate.
        kernel_regularizer: Regularizer of both kernels.

    Call arguments:
        inputs: A feature map.

    Input shape: `(batch, height, width, channels)`.

    Output shape: that of the input, in the layer's compute dtype.

    Raises:
        ValueError: If `units` or `ratio` is not a positive integer.

    Example:

    >>> SqueezeExcitation(4)(keras.random.normal((2, 9, 7, 16))).shape
    (2, 9, 7, 16)

    Reference: [hu2017] arXiv:1709.01507.
    """

    def __init__(
        self,
        units=None,
        activation="relu",
        gate_activation="hard_sigmoid",
        kernel_regularizer=None,
        ratio=16,
        **kwargs,
    ):
        units = positive_integer("units", units, optional=True)
        ratio = positive_integer("ratio", ratio)
        super().__init__(**kwargs)
        self.units = units
        self.ratio = ratio
        self.activation = keras.activations.get(activation)
        self.gate_activation = keras.activations.get(gate_activation)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape):
        channels = input_shape[-1]
        units = self._units(channels)
        self.squeeze = regularized_dense(self, units, self.activation, "squeeze")
        self.squeeze.build((None, channels))
        self.excite = regularized_dense(self, channels, self.gate_activation, "excite")
        self.excite.build((None, units))

    def _units(self, channels):
        return self.units or max(1, channels // self.ratio)

    def call(self, inputs):
        mean = ops.mean(inputs, axis=(1, 2))
        gate = self.excite(self.squeeze(mean))
        return inputs * gate[:, None, None, :]

    def multiply_adds(self, input_shape):
        channels = input_shape[-1]
        return 2 * self._units(channels) * channels

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "ratio": self.ratio,
            "activation": keras.activations.serialize(self.activation),
            "gate_activation": keras.activations.serialize(self.gate_activation),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }
