import keras
from keras import ops

from keras_attn.layers._maps import MapLayer
from keras_attn.ops import second_moments


@keras.saving.register_keras_serializable(package="keras_attn")
class BilinearPooling(MapLayer):
    """Mean outer product of the descriptors, normalised.

    Lin et al., "Bilinear CNN Models for Fine-grained Visual Recognition": with one
    network for both factors, `X^T X / n` of the n descriptors in the rows of `X`, then
    the signed square root `sign(x) sqrt(|x| + 1e-8)` and the L2 norm.

    The output grows with the square of the channels: reduce them first.

    Call arguments:
        inputs: A feature map.

    Input shape: `(batch, height, width, channels)`, any height and width.

    Output shape: `(batch, channels ** 2)`, of unit norm, or zero for a zero map;
        computed in float32, returned in the layer's compute dtype.

    Example:

    >>> BilinearPooling()(keras.random.normal((2, 9, 7, 16))).shape
    (2, 256)

    Reference: [lin2015] arXiv:1504.07889.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, inputs):
        products = second_moments.outer_product_mean(inputs)
        channels = inputs.shape[-1]
        flat = ops.reshape(products, (ops.shape(products)[0], channels * channels))
        descriptor = second_moments.l2_normalize(second_moments.signed_sqrt(flat))
        return ops.cast(descriptor, self.compute_dtype)

    def window_steps(self):
        return None

    def multiply_adds(self, input_shape):
        _, height, width, channels = input_shape
        return height * width * channels**2

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1] ** 2)
