import keras

from keras_attn._checks import positive_integer, positive_number
from keras_attn.ops.soft_maximizers import perturbed_argmax
from keras_attn.ops.tracing import refuse_portable


@keras.saving.register_keras_serializable(package="keras_attn")
class PerturbedArgmax(keras.layers.Layer):
    """Mean argmax under noise: a drop-in for BatchNormalization-ReLU.

    Class embedding paper, problem P2, proposition 3.1 and section 4.1: the mean over
    `samples` draws of the one-hot argmax of the noisy activations and the noisy
    margin, times `scale`. It replaces BatchNormalization and ReLU after a 3x3
    convolution, before the 1x1 convolution that sums the embedding vectors, and
    needs no batch statistics. The activations must come un-normalised.

    The output is a Monte-Carlo estimate in training and at inference: calling
    the layer twice gives two estimates, whose standard deviation is at most
    `scale / (2 sqrt(samples))`. The backward pass sees the noise of the forward pass.
    A pass draws `samples` times as many random numbers as there are activations, in
    chunks, so that it is slow but needs little memory. Files for ONNX and LiteRT
    cannot hold it, and are refused.

    Args:
        margin: The paper's `mu`; its estimate for a ResNet20 on CIFAR-10 is 2.5.
            See `keras_attn.estimate_margin_and_scale`.
        inverse_temperature: The paper's `epsilon`, positive; the noise has the
            standard deviation `1 / epsilon`.
        samples: Number of draws, 600 in the paper.
        scale: The paper's `kappa`, positive, 17 in its experiments. It brings the
            output to the magnitude that BatchNormalization-ReLU has.
        axis: Axis of the competing activations, the channels.
        chunk_size: Number of samples drawn at once, or `None` to choose it by the
            size of the input.
        control_variate: If True, a gradient estimate of lower variance and the same
            expectation.
        seed: Integer seed of the layer's generator, or `None` for a random one.

    Call arguments:
        inputs: Activations.

    Input shape: any.

    Output shape: that of the input. Values in 0..scale whose sum along `axis` is at
        most `scale`. Computed in float32 at least, returned in the compute dtype.

    Raises:
        ValueError: If `inverse_temperature`, `samples`, `scale` or `chunk_size` is
            not positive; where the layer is exported for ONNX or LiteRT.

    Example:

    >>> layer = PerturbedArgmax(margin=0.0, scale=3.0, samples=10, seed=1)
    >>> layer(np.array([[9.0, 0.0], [-90.0, -90.0]]))
    [[3.0, 0.0], [0.0, 0.0]]

    Reference: [gorgun2022] arXiv:2210.00992, proposition 3.1 and section 4.1.
    """

    def __init__(
        self,
        margin=2.5,
        inverse_temperature=1.0,
        samples=600,
        scale=1.0,
        axis=-1,
        chunk_size=None,
        control_variate=False,
        seed=None,
        **kwargs,
    ):
        positive_number("inverse_temperature", inverse_temperature)
        samples = positive_integer("samples", samples)
        positive_number("scale", scale)
        chunk_size = positive_integer("chunk_size", chunk_size, optional=True)
        super().__init__(**kwargs)
        self.margin = margin
        self.inverse_temperature = inverse_temperature
        self.samples = samples
        self.scale = scale
        self.axis = axis
        self.chunk_size = chunk_size
        self.control_variate = control_variate
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def call(self, inputs):
        refuse_portable(self, "draws random numbers; `MarginSoftmax` does not")
        return self.scale * perturbed_argmax(
            inputs,
            self.margin,
            self.inverse_temperature,
            samples=self.samples,
            seed=self.seed_generator,
            axis=self.axis,
            chunk_size=self.chunk_size,
            control_variate=self.control_variate,
        )

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "margin": self.margin,
            "inverse_temperature": self.inverse_temperature,
            "samples": self.samples,
            "scale": self.scale,
            "axis": self.axis,
            "chunk_size": self.chunk_size,
            "control_variate": self.control_variate,
            "seed": self.seed,
        }
