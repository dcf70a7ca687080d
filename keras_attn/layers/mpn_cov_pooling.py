import keras
from keras import ops

from keras_attn.layers._maps import MapLayer
from keras_attn.ops import second_moments
from keras_attn.ops.tracing import refuse_portable


@keras.saving.register_keras_serializable(package="keras_attn")
class MPNCOVPooling(MapLayer):
    """Square root of the covariance of the descriptors, by eigen-decomposition.

    Li et al., "Is Second-order Information Helpful for Large-scale Visual
    Recognition?" (MPN-COV), with the power 1/2. Eigenvalues within rounding error of
    zero count as zero, in the gradient too, so that maps with fewer cells than
    channels and constant maps are safe.

    Decompositions are slow on accelerators, and files for ONNX and LiteRT cannot hold
    them; `ISQRTCOVPooling` avoids them.

    Call arguments:
        inputs: A feature map.

    Input shape: `(batch, height, width, channels)`, any height and width.

    Output shape: `(batch, channels * (channels + 1) / 2)`, the upper triangle with the
        diagonal, row by row; computed in float32, returned in the layer's compute
        dtype.

    Raises:
        ValueError: Where the layer is exported for ONNX or LiteRT.

    Example:

    >>> MPNCOVPooling()(keras.random.normal((2, 9, 7, 16))).shape
    (2, 136)

    Reference: [li2017a] arXiv:1703.08050.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, inputs):
        refuse_portable(self, "decomposes matrices; `ISQRTCOVPooling` does not")
        root = second_moments.eigen_root(second_moments.covariance(inputs))
        return ops.cast(second_moments.upper_triangle(root), self.compute_dtype)

    def window_steps(self):
        return None

    def multiply_adds(self, input_shape):
        _, height, width, channels = input_shape
        # The covariance and `U diag U^T`; the decomposition is not counted.
        return height * width * channels**2 + channels**3

    def compute_output_shape(self, input_shape):
        channels = input_shape[-1]
        return (input_shape[0], channels * (channels + 1) // 2)
