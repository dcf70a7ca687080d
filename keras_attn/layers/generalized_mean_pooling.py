import keras

from keras_attn._checks import positive_number
from keras_attn.layers._maps import MapLayer
from keras_attn.ops.global_pooling import generalized_mean


@keras.saving.register_keras_serializable(package="keras_attn")
class GeneralizedMeanPooling(MapLayer):
    """GeM pooling: between the mean and the maximum of the cells, learned.

    Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", eq.
    (3): `(mean over cells of max(X, epsilon)^p)^(1/p)`, with one trainable `p`.

    Args:
        p: Initial exponent, positive. 1 is average pooling of features that are not
            negative (SPoC); large ones come near to `GlobalMaxPooling2D` (MAC).
        epsilon: Smallest value, positive; negative features count as this.

    Call arguments:
        inputs: A feature map.

    Input shape: `(batch, height, width, channels)`, any height and width.

    Output shape: `(batch, channels)`, not normalised; computed in float32, returned in
        the layer's compute dtype.

    Raises:
        ValueError: If `p` or `epsilon` is not positive.

    Example:

    >>> GeneralizedMeanPooling()(keras.random.uniform((2, 9, 7, 16))).shape
    (2, 16)

    Reference: [radenovic2017] arXiv:1711.02512, equation (3).
    """

    def __init__(self, p=3.0, epsilon=1e-6, **kwargs):
        positive_number("p", p)
        positive_number("epsilon", epsilon)
        super().__init__(**kwargs)
        self.p = p
        self.epsilon = epsilon
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape):
        # Not cast to half precision, in which 2.999 is 3.
        self.exponent = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(self.p),
            autocast=False,
            name="exponent",
        )

    def call(self, inputs):
        return generalized_mean(inputs, self.exponent, self.epsilon)

    def window_steps(self):
        return None

    def multiply_adds(self, input_shape):
        return 0

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "p": self.p, "epsilon": self.epsilon}
