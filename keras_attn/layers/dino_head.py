import keras
from keras import ops

from keras_attn._checks import integer, positive_integer
from keras_attn.ops.activations import exact_gelu
from keras_attn.ops.precision import float32_at_least

# Least length that a vector is divided by.
SMALLEST_LENGTH = 1e-12


@keras.saving.register_keras_serializable(package="keras_attn")
class DinoHead(keras.layers.Layer):
    """Projection head of DINO: scores of an embedding for many learned directions.

    Caron et al., "Emerging Properties in Self-Supervised Vision Transformers",
    section 3.1: a perceptron of three layers, GELU between them, whose last is a
    bottleneck, L2 normalisation, and a weight-normalised layer without bias:

        h(x) = g * <v / |v|, z / |z|>,  z = perceptron(x)

    so that a score is a cosine as long as the gains g are 1, which they stay unless
    they are learned.

    Args:
        units: Number of scores, the paper's K.
        hidden_units: Width of the perceptron.
        bottleneck_units: Width of z.
        hidden_layers: Layers of the perceptron before the bottleneck.
        learn_gain: Whether g is learned; this makes the paper's larger models unstable.
        batch_normalization: Whether each of the perceptron's hidden layers is
            normalised before GELU, as in some of the published heads.

    Call arguments:
        inputs: Embeddings.
        training: Whether batch normalisations use the statistics of the batch.

    Input shape: `(..., channels)`.

    Output shape: `(..., units)`, in the compute dtype; in [-1, 1] with gains of 1.
        Lengths are computed in float32. A vector z of zeros gives zeros.

    Raises:
        ValueError: If a number of units is not positive.

    Example:

    >>> head = DinoHead(4096)
    >>> head(keras.random.normal((2, 192))).shape
    (2, 4096)

    Reference: [caron2021] arXiv:2104.14294, section 3.1.
    """

    def __init__(
        self,
        units=65536,
        hidden_units=2048,
        bottleneck_units=256,
        hidden_layers=2,
        learn_gain=False,
        batch_normalization=False,
        **kwargs,
    ):
        positive_integer("units", units)
        positive_integer("hidden_units", hidden_units)
        positive_integer("bottleneck_units", bottleneck_units)
        integer("hidden_layers", hidden_layers, 0)
        super().__init__(**kwargs)
        self.units = units
        self.hidden_units = hidden_units
        self.bottleneck_units = bottleneck_units
        self.hidden_layers = hidden_layers
        self.learn_gain = learn_gain
        self.batch_normalization = batch_normalization
        self.supports_masking = True

    def build(self, input_shape):
        def dense(units, activation, name):
            return keras.layers.Dense(
                units,
                activation,
                kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
                dtype=self.dtype_policy,
                name=name,
            )

        self.perceptron = [
            dense(
                self.hidden_units,
                None if self.batch_normalization else exact_gelu,
                f"hidden_{number + 1}",
            )
            for number in range(self.hidden_layers)
        ]
        self.perceptron.append(dense(self.bottleneck_units, None, "bottleneck"))
        shape = tuple(input_shape)
        for layer in self.perceptron:
            layer.build(shape)
            shape = layer.compute_output_shape(shape)
        if self.batch_normalization:
            # Momentum and epsilon of PyTorch.
            self.normalizations = [
                keras.layers.BatchNormalization(
                    momentum=0.9,
                    epsilon=1e-5,
                    dtype=self.dtype_policy,
                    name=f"normalization_{number + 1}",
                )
                for number in range(self.hidden_layers)
            ]
            for layer in self.normalizations:
                layer.build((*shape[:-1], self.hidden_units))
        self.directions = self.add_weight(
            shape=(self.bottleneck_units, self.units),
            # As PyTorch's linear layers start.
            initializer=keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform"),
            name="directions",
        )
        self.gain = self.add_weight(
            shape=(self.units,),
            initializer="ones",
            trainable=self.learn_gain,
            name="gain",
        )

    def call(self, inputs, training=None):
        for number, layer in enumerate(self.perceptron):
            inputs = layer(inputs)
            if self.batch_normalization and number < self.hidden_layers:
                normalize = self.normalizations[number]
                inputs = exact_gelu(normalize(inputs, training=training))
        unit = ops.cast(_normalized(inputs, axis=-1), self.compute_dtype)
        kernel = _normalized(self.directions, axis=0)
        kernel = kernel * ops.cast(self.gain, kernel.dtype)
        return ops.matmul(unit, ops.cast(kernel, self.compute_dtype))

    def multiply_adds(self, input_shape):
        cells = 1
        for size in input_shape[1:-1]:
            cells *= size
        widths = [input_shape[-1]] + [self.hidden_units] * self.hidden_layers
        widths += [self.bottleneck_units, self.units]
        return cells * sum(a * b for a, b in zip(widths, widths[1:], strict=False))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "hidden_units": self.hidden_units,
            "bottleneck_units": self.bottleneck_units,
            "hidden_layers": self.hidden_layers,
            "learn_gain": self.learn_gain,
            "batch_normalization": self.batch_normalization,
        }


def _normalized(vectors, axis):
    vectors = float32_at_least(vectors)
    square = ops.sum(ops.square(vectors), axis=axis, keepdims=True)
    # The bound is below the root, which has no gradient at zero.
    return vectors * ops.rsqrt(ops.maximum(square, SMALLEST_LENGTH**2))
