import keras
from keras import ops

from keras_attn._checks import positive_number
from keras_attn.layers._blocks import register_block
from keras_attn.layers._maps import MapBlock
from keras_attn.ops.precision import float32_at_least


@register_block("simam")
@keras.saving.register_keras_serializable(package="keras_attn")
class SimAM(MapBlock):
    """Scales every value by its distance from the others of its channel.

    Yang et al., "SimAM: A Simple, Parameter-Free Attention Module for Convolutional
    Neural Networks", 2021, without weights; for each channel of `n` cells with mean
    `m`, and with `n - 1` as in the authors' code,

        v = sum over cells of (x - m)^2 / (n - 1)
        y = x * sigmoid((x - m)^2 / (4 (v + epsilon)) + 1 / 2)

    Args:
        epsilon: Positive number, the paper's lambda.

    Call arguments:
        inputs: A feature map.

    Input shape: `(batch, height, width, channels)`.

    Output shape: that of the input, in the layer's compute dtype; the gate is
        computed in float32 at least.

    Raises:
        ValueError: If `epsilon` is not positive.

    Example:

    >>> SimAM()(keras.random.normal((2, 9, 7, 16))).shape
    (2, 9, 7, 16)

    Reference: [yang2021], equations (5) and (6).
    """

    def __init__(self, epsilon=1e-4, **kwargs):
        positive_number("epsilon", epsilon)
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, input_shape):
        pass

    def call(self, inputs):
        x = float32_at_least(inputs)
        distance = ops.square(x - ops.mean(x, axis=(1, 2), keepdims=True))
        height, width = ops.shape(x)[1:3]
        others = ops.cast(ops.maximum(height * width - 1, 1), x.dtype)
        variance = ops.sum(distance, axis=(1, 2), keepdims=True) / others
        gate = ops.sigmoid(distance / (4 * (variance + self.epsilon)) + 0.5)
        return inputs * ops.cast(gate, inputs.dtype)

    def multiply_adds(self, input_shape):
        return 0

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}
