import keras
from keras import ops

from keras_attn._checks import positive_integer
from keras_attn.layers._maps import MapLayer
from keras_attn.ops import second_moments


@keras.saving.register_keras_serializable(package="keras_attn")
class ISQRTCOVPooling(MapLayer):
    """Square root of the covariance of the descriptors, by matrix products alone.

    Li et al., "Towards Faster Training of Global Covariance Pooling Networks by
    Iterative Matrix Square Root Normalization" (iSQRT-COV). A few iterations do
    not come close to the exact root of many channels, and need not: the layers behind
    learn from what they return.

    Args:
        iterations: Number of Newton-Schulz iterations, at least 1.

    Call arguments:
        inputs: A feature map.

    Input shape: `(batch, height, width, channels)`, any height and width.

    Output shape: `(batch, channels * (channels + 1) / 2)`, the upper triangle with the
        diagonal, row by row; computed in float32, returned in the layer's compute
        dtype.

    Raises:
        ValueError: If `iterations` is not a positive integer.

    Example:

    >>> ISQRTCOVPooling()(keras.random.normal((2, 9, 7, 16))).shape
    (2, 136)

    Reference: [li2017b] arXiv:1712.01034.
    """

    def __init__(self, iterations=5, **kwargs):
        iterations = positive_integer("iterations", iterations)
        super().__init__(**kwargs)
        self.iterations = iterations
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, inputs):
        root = second_moments.newton_schulz_root(
            second_moments.covariance(inputs), self.iterations
        )
        return ops.cast(second_moments.upper_triangle(root), self.compute_dtype)

    def window_steps(self):
        return None

    def multiply_adds(self, input_shape):
        _, height, width, channels = input_shape
        # One product in the first iteration, three in the others, two in the last.
        products = max(1, 3 * (self.iterations - 1))
        return height * width * channels**2 + products * channels**3

    def compute_output_shape(self, input_shape):
        channels = input_shape[-1]
        return (input_shape[0], channels * (channels + 1) // 2)

    def get_config(self):
        return {**super().get_config(), "iterations": self.iterations}
