import keras
from keras import ops

from keras_attn.layers._maps import MapLayer
from keras_attn.ops.precision import float32_at_least


@keras.saving.register_keras_serializable(package="keras_attn")
class SpatialAttentionBranch(MapLayer):
    """Attention of a branch of AnchorNet: first over channels, then over cells.

    AnchorNet paper, equations (1) to (5), for features `X`:

    1. `G = softmax over cells of X w + b`, one weight per cell,
    2. `C~ = sum over cells of X * G`, 3. `C = softmax over channels of C~`,
    4. `S~ = sum over channels of X * C`, 5. `S = softmax over cells of S~`.

    Args:
        kernel_regularizer: Regularizer of `w`.

    Call arguments:
        inputs: A feature map.

    Input shape: `(batch, height, width, channels)`, any height and width.

    Output shape: `(batch, height, width, 1)`, positive, summing to one over the cells
        of an image; computed in float32, returned in the layer's compute dtype.

    Example:

    >>> attention = SpatialAttentionBranch()(keras.random.normal((2, 21, 21, 96)))
    >>> attention.shape, float(attention[0].numpy().sum().round(3))
    ((2, 21, 21, 1), 1.0)

    Reference: [yang2020] arXiv:2002.03737, equations (1) to (5).
    """

    def __init__(self, kernel_regularizer=None, **kwargs):
        super().__init__(**kwargs)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape):
        self.compact = keras.layers.Dense(
            1,
            kernel_regularizer=self.kernel_regularizer,
            dtype=self.dtype_policy,
            name="compact",
        )
        self.compact.build(input_shape)

    def call(self, inputs):
        cell_weights = _softmax_over_cells(self.compact(inputs))
        features = float32_at_least(inputs)
        channels = ops.sum(features * cell_weights, axis=(1, 2), keepdims=True)
        channel_attention = ops.softmax(channels, axis=-1)
        scores = ops.sum(features * channel_attention, axis=-1, keepdims=True)
        return ops.cast(_softmax_over_cells(scores), self.compute_dtype)

    def window_steps(self):
        return None

    def multiply_adds(self, input_shape):
        _, height, width, channels = input_shape
        # The weighted sums of equations (1), (2) and (4).
        return 3 * height * width * channels

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 1)

    def get_config(self):
        return {
            **super().get_config(),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }


def _softmax_over_cells(scores):
    """Softmax over rows and columns together, in float32 at least."""
    scores = float32_at_least(scores)
    # By hand, since `ops.softmax` over two axes needs a known batch size.
    weights = ops.exp(scores - ops.max(scores, axis=(1, 2), keepdims=True))
    return weights / ops.sum(weights, axis=(1, 2), keepdims=True)
