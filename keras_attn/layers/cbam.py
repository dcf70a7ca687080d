import keras
from keras import ops

from keras_attn._checks import positive_integer
from keras_attn.graph.window_steps import WindowStep
from keras_attn.layers._blocks import register_block
from keras_attn.layers._maps import MapBlock
from keras_attn.layers._sublayers import regularized_dense


@register_block("cbam")
@keras.saving.register_keras_serializable(package="keras_attn")
class CBAM(MapBlock):
    """Scales every channel, then every cell, by gates from means and maxima.

    Woo et al., "CBAM: Convolutional Block Attention Module", 2018:

    1. `x' = x * sigmoid(m(mean(x)) + m(max(x)))`, mean and maximum over all cells,
       `m(z) = activation(z W0) W1` without biases,
    2. `x'' = x' * sigmoid(f([mean(x'); max(x')]))`, mean and maximum over the
       channels, `f` a convolution to one channel.

    The authors' code has a batch normalisation behind `f`, which the paper's equation
    does not have. Here `f` has a bias: both are one at inference.

    Args:
        ratio: The hidden layer of `m` has `channels / ratio` units, at least 1.
        kernel_size: Rows and columns of the kernel of `f`.
        activation: Activation of the hidden layer.
        gate_activation: Activation of both gates.
        kernel_regularizer: Regularizer of the three kernels.

    Call arguments:
        inputs: A feature map.

    Input shape: `(batch, height, width, channels)`.

    Output shape: that of the input, in the layer's compute dtype.

    Raises:
        ValueError: If `ratio` or `kernel_size` is not a positive integer.

    Example:

    >>> CBAM(ratio=4)(keras.random.normal((2, 9, 7, 16))).shape
    (2, 9, 7, 16)

    Reference: [woo2018] arXiv:1807.06521, equations (2) and (3).
    """

    def __init__(
        self,
        ratio=16,
        kernel_size=7,
        activation="relu",
        gate_activation="sigmoid",
        kernel_regularizer=None,
        **kwargs,
    ):
        ratio = positive_integer("ratio", ratio)
        kernel_size = positive_integer("kernel_size", kernel_size)
        super().__init__(**kwargs)
        self.ratio = ratio
        self.kernel_size = kernel_size
        self.activation = keras.activations.get(activation)
        self.gate_activation = keras.activations.get(gate_activation)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape):
        channels = input_shape[-1]
        units = max(1, channels // self.ratio)
        self.squeeze = regularized_dense(
            self, units, self.activation, "squeeze", use_bias=False
        )
        self.squeeze.build((None, channels))
        self.excite = regularized_dense(self, channels, None, "excite", use_bias=False)
        self.excite.build((None, units))
        self.over_cells = keras.layers.Conv2D(
            1,
            self.kernel_size,
            padding="same",
            activation=self.gate_activation,
            kernel_regularizer=self.kernel_regularizer,
            dtype=self.dtype_policy,
            name="over_cells",
        )
        self.over_cells.build((*input_shape[:-1], 2))

    def call(self, inputs):
        pooled = [reduce(inputs, axis=(1, 2)) for reduce in (ops.mean, ops.max)]
        mean, largest = (self.excite(self.squeeze(each)) for each in pooled)
        x = inputs * self.gate_activation(mean + largest)[:, None, None, :]
        pooled = [reduce(x, axis=-1, keepdims=True) for reduce in (ops.mean, ops.max)]
        return x * self.over_cells(ops.concatenate(pooled, axis=-1))

    def window_steps(self):
        return [None, WindowStep(self.kernel_size, padding="same")]

    def multiply_adds(self, input_shape):
        _, height, width, channels = input_shape
        gates = 4 * channels * max(1, channels // self.ratio)
        return gates + 2 * height * width * self.kernel_size**2

    def get_config(self):
        return {
            **super().get_config(),
            "ratio": self.ratio,
            "kernel_size": self.kernel_size,
            "activation": keras.activations.serialize(self.activation),
            "gate_activation": keras.activations.serialize(self.gate_activation),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }
