import keras
from keras import ops

from keras_attn.layers._maps import MapLayer
from keras_attn.ops.precision import float32_at_least


@keras.saving.register_keras_serializable(package="keras_attn")
class ContextPooling(MapLayer):
    """Attention pooling: the average of all cells, weighted by a softmax over them.

    The pooling before the gates of HCGNet (Yang et al., "Gated Convolutional Networks
    with Hybrid Connectivity for Image Classification"), for features `X`:
    `sum over cells of X * softmax over cells of (X w + b)`.

    Args:
        kernel_regularizer: Regularizer of `w`.

    Call arguments:
        inputs: A feature map.

    Input shape: `(batch, height, width, channels)`, any height and width.

    Output shape: `(batch, 1, 1, channels)`, each value between the smallest and the
        largest of its channel; computed in float32, returned in the layer's compute
        dtype.

    Example:

    >>> ContextPooling()(keras.random.normal((2, 9, 7, 16))).shape
    (2, 1, 1, 16)

    Reference: [yang2019] arXiv:1908.09699.
    """

    def __init__(self, kernel_regularizer=None, **kwargs):
        super().__init__(**kwargs)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape):
        self.score = keras.layers.Dense(
            1,
            kernel_regularizer=self.kernel_regularizer,
            dtype=self.dtype_policy,
            name="score",
        )
        self.score.build(input_shape)

    def call(self, inputs):
        scores = float32_at_least(self.score(inputs))
        # By hand, since `ops.softmax` over two axes needs a known batch size.
        weights = ops.exp(scores - ops.max(scores, axis=(1, 2), keepdims=True))
        weights = weights / ops.sum(weights, axis=(1, 2), keepdims=True)
        features = float32_at_least(inputs)
        context = ops.sum(features * weights, axis=(1, 2), keepdims=True)
        return ops.cast(context, self.compute_dtype)

    def window_steps(self):
        """`None`: every output sees all cells."""
        return None

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 1, 1, input_shape[-1])

    def get_config(self):
        return {
            **super().get_config(),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }
