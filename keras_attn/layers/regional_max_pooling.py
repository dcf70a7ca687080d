import keras

from keras_attn._checks import positive_integer
from keras_attn.layers._maps import MapLayer
from keras_attn.ops.global_pooling import fixed_size, regional_maximum


@keras.saving.register_keras_serializable(package="keras_attn")
class RegionalMaxPooling(MapLayer):
    """R-MAC pooling: the normalised maxima of regions at several scales, added up.

    Tolias et al., "Particular object retrieval with integral max-pooling of CNN
    activations": the maximum over the whole map and over each of its overlapping
    square regions, every one scaled to length one.
    `keras_attn.ops.global_pooling.pooling_regions` defines the regions; a square map
    has 1 + 4 + 9.

    Args:
        levels: Number of scales, at least 1.
        epsilon: Added to lengths before dividing by them.

    Call arguments:
        inputs: A feature map.

    Input shape: `(batch, height, width, channels)`, any fixed height and width.

    Output shape: `(batch, channels)`, not normalised again; lengths are computed in
        float32, the result has the layer's compute dtype.

    Raises:
        ValueError: If `levels` is not a positive integer, or if the height or width
            of the input is unknown when the layer is called.

    Example:

    >>> RegionalMaxPooling()(keras.random.uniform((2, 9, 7, 16))).shape
    (2, 16)

    Reference: [tolias2015] arXiv:1511.05879.
    """

    def __init__(self, levels=3, epsilon=1e-6, **kwargs):
        levels = positive_integer("levels", levels)
        super().__init__(**kwargs)
        self.levels = levels
        self.epsilon = epsilon
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, inputs):
        return regional_maximum(inputs, self.levels, self.epsilon)

    def window_steps(self):
        return None

    def multiply_adds(self, input_shape):
        return 0

    def compute_output_shape(self, input_shape):
        # Symbolic calls reach no other check.
        fixed_size(input_shape)
        return (input_shape[0], input_shape[-1])

    def get_config(self):
        return {
            **super().get_config(),
            "levels": self.levels,
            "epsilon": self.epsilon,
        }
