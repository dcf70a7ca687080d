import keras

from keras_attn._checks import positive_number
from keras_attn.ops.soft_maximizers import margin_softmax


@keras.saving.register_keras_serializable(package="keras_attn")
class MarginSoftmax(keras.layers.Layer):
    """Softmax against a constant margin: a drop-in for BatchNormalization-ReLU.

    Class embedding paper, proposition 3.2 and section 4.1:
    `scale * exp(epsilon a_k) / (exp(epsilon mu) + sum_j exp(epsilon a_j))`. It
    replaces BatchNormalization and ReLU after a 3x3 convolution, before the 1x1
    convolution that sums the embedding vectors, and needs no batch statistics. The
    activations must come un-normalised.

    Args:
        margin: The paper's `mu`; its estimate for a ResNet20 on CIFAR-10 is 2.5.
            See `keras_attn.estimate_margin_and_scale`.
        inverse_temperature: The paper's `epsilon`, positive.
        scale: The paper's `kappa`, positive, 17 in its experiments. It brings the
            output to the magnitude that BatchNormalization-ReLU has.
        axis: Axis of the competing activations, the channels.

    Call arguments:
        inputs: Activations.

    Input shape: any.

    Output shape: that of the input. Values in 0..scale whose sum along `axis` is at
        most `scale`. Computed in float32 at least, returned in the compute dtype.

    Raises:
        ValueError: If `inverse_temperature` or `scale` is not positive.

    Example:

    >>> activations = np.array([[0.0, 0.0], [-90.0, -90.0]])
    >>> MarginSoftmax(margin=0.0, scale=3.0)(activations)
    [[1.0, 1.0], [0.0, 0.0]]

    Reference: [gorgun2022] arXiv:2210.00992, proposition 3.2 and section 4.1.
    """

    def __init__(
        self, margin=2.5, inverse_temperature=1.0, scale=1.0, axis=-1, **kwargs
    ):
        positive_number("inverse_temperature", inverse_temperature)
        positive_number("scale", scale)
        super().__init__(**kwargs)
        self.margin = margin
        self.inverse_temperature = inverse_temperature
        self.scale = scale
        self.axis = axis
        self.supports_masking = True

    def call(self, inputs):
        return self.scale * margin_softmax(
            inputs, self.margin, self.inverse_temperature, self.axis
        )

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "margin": self.margin,
            "inverse_temperature": self.inverse_temperature,
            "scale": self.scale,
            "axis": self.axis,
        }
