import keras
from keras import ops

from keras_attn._checks import positive_integer
from keras_attn.layers._blocks import register_block
from keras_attn.layers._maps import MapBlock
from keras_attn.layers._sublayers import regularized_dense
from keras_attn.ops.precision import float32_at_least


@register_block("global_context")
@keras.saving.register_keras_serializable(package="keras_attn")
class GlobalContext(MapBlock):
    """Adds one vector to all cells, computed from those that attention chooses.

    Cao et al., "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and
    Beyond", 2019: `x + activation(LN(c W1 + b1)) W2 + b2` for the context
    `c = sum over cells j of softmax over cells (x_j w + b)_j x_j`, with a layer
    normalisation `LN`.

    A new layer leaves the map as it is, exactly: `W2` and `b2` start at zero, as in
    the authors' code.

    Args:
        ratio: The hidden layer has `channels / ratio` units, at least 4: normalised,
            one or two of them have nothing left to learn.
        activation: Activation of the hidden layer.
        kernel_regularizer: Regularizer of `w`, `W1` and `W2`.

    Call arguments:
        inputs: A feature map.

    Input shape: `(batch, height, width, channels)`.

    Output shape: that of the input, in the layer's compute dtype.

    Raises:
        ValueError: If `ratio` is not a positive integer.

    Example:

    >>> GlobalContext(ratio=4)(keras.random.normal((2, 9, 7, 16))).shape
    (2, 9, 7, 16)

    Reference: [cao2019] arXiv:1904.11492, equation (5).
    """

    starts_as_identity = True

    def __init__(self, ratio=16, activation="relu", kernel_regularizer=None, **kwargs):
        ratio = positive_integer("ratio", ratio)
        super().__init__(**kwargs)
        self.ratio = ratio
        self.activation = keras.activations.get(activation)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape):
        channels = input_shape[-1]
        units = max(4, channels // self.ratio)
        self.attend = regularized_dense(self, 1, None, "attend")
        self.attend.build(input_shape)
        self.squeeze = regularized_dense(self, units, None, "squeeze")
        self.squeeze.build((None, channels))
        self.normalization = keras.layers.LayerNormalization(
            epsilon=1e-5, dtype=self.dtype_policy, name="normalization"
        )
        self.normalization.build((None, units))
        self.expand = regularized_dense(
            self, channels, None, "expand", kernel_initializer="zeros"
        )
        self.expand.build((None, units))

    def call(self, inputs):
        _, height, width, channels = ops.shape(inputs)
        cells = ops.reshape(inputs, (-1, height * width, channels))
        scores = float32_at_least(self.attend(cells))
        attention = ops.cast(ops.softmax(scores, axis=1), inputs.dtype)
        context = ops.matmul(ops.transpose(attention, (0, 2, 1)), cells)
        hidden = self.activation(self.normalization(self.squeeze(context)))
        return inputs + self.expand(hidden)[:, None]

    def multiply_adds(self, input_shape):
        _, height, width, channels = input_shape
        units = max(4, channels // self.ratio)
        return 2 * height * width * channels + 2 * channels * units

    def get_config(self):
        return {
            **super().get_config(),
            "ratio": self.ratio,
            "activation": keras.activations.serialize(self.activation),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }
