import keras

from keras_attn.layers._maps import MapLayer
from keras_attn.ops.global_pooling import cross_dimensional_mean


@keras.saving.register_keras_serializable(package="keras_attn")
class CrossDimensionalPooling(MapLayer):
    """CroW pooling: cells weighted by their response, channels by their rarity.

    Kalantidis et al., "Cross-dimensional Weighting for Aggregated Deep Convolutional
    Features". With the sum `S'` of the channels `X_k` of a cell and the share `Q_k` of
    cells where channel `k` is not zero,

    - `S = sqrt(S' / ||S'||_2)`, the weight of a cell,
    - `log(sum_k Q_k / Q_k)`, the weight of a channel, 0 where `Q_k = 0`,

    and the result is the weighted sum over the cells. It has no weights to learn.

    Call arguments:
        inputs: A feature map.

    Input shape: `(batch, height, width, channels)`, any height and width; values that
        are not negative, such as those after a ReLU.

    Output shape: `(batch, channels)`, not normalised; computed in float32, returned in
        the layer's compute dtype.

    Example:

    >>> CrossDimensionalPooling()(keras.random.uniform((2, 9, 7, 16))).shape
    (2, 16)

    Reference: [kalantidis2015] arXiv:1512.04065.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, inputs):
        return cross_dimensional_mean(inputs)

    def window_steps(self):
        return None

    def multiply_adds(self, input_shape):
        _, height, width, channels = input_shape
        return height * width * channels

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1])
