import keras

from keras_attn._checks import one_of, positive_integer
from keras_attn.graph.window_steps import WindowStep
from keras_attn.layers._folding import normalized
from keras_attn.layers._maps import MapLayer
from keras_attn.layers.squeeze_excitation import SqueezeExcitation

SHORTCUTS = ("top_left", "centre")


@keras.saving.register_keras_serializable(package="keras_attn")
class ValidBottleneck(MapLayer):
    """Inverted bottleneck without padding, the building block of AnchorNet.

    AnchorNet paper, tables 1 and 2: 1x1 expansion, BN, activation; k x k depthwise
    convolution, BN, activation; squeeze-excitation; 1x1 projection, BN. The expansion
    is left out where it would keep the width. Nothing is padded, so that a cell's
    window never leaves the image.

    With stride 1 and equal widths the input is added. The convolution makes the map
    smaller by `kernel_size - 1`, so the input is cropped: `"top_left"` keeps the first
    rows and columns, as the authors' code and BagNet do, `"centre"` the middle ones.
    Both lie inside the convolution's window.

    Args:
        filters: Channels of the output.
        expansion: Channels of the expanded map.
        kernel_size: Integer, kernel size of the depthwise convolution.
        strides: Integer, strides of the depthwise convolution.
        squeeze_units: Hidden width of the squeeze-excitation; `None`: without.
        activation: Activation after expansion and depthwise convolution.
        squeeze_activation, gate_activation: Activations of the squeeze-excitation.
        shortcut: `"top_left"` or `"centre"`.
        kernel_regularizer: Regularizer of all kernels.

    Call arguments:
        inputs: A feature map.
        training: Whether batch normalisations use the statistics of the batch.

    Input shape: `(batch, height, width, channels)`, with height and width at least
        `kernel_size`.

    Output shape: `(batch, (height - kernel_size) // strides + 1, ..., filters)` in the
        layer's compute dtype.

    Raises:
        ValueError: For an unknown shortcut, sizes that are not positive integers, or
            a map that is smaller than the kernel.

    Example:

    >>> layer = ValidBottleneck(24, expansion=72, kernel_size=3, strides=2)
    >>> layer(keras.random.normal((2, 55, 55, 16))).shape
    (2, 27, 27, 24)

    Reference: [yang2020] arXiv:2002.03737, tables 1 and 2.
    """

    def __init__(
        self,
        filters,
        expansion,
        kernel_size=3,
        strides=1,
        squeeze_units=None,
        activation="hard_silu",
        squeeze_activation="relu",
        gate_activation="hard_sigmoid",
        shortcut="top_left",
        kernel_regularizer=None,
        **kwargs,
    ):
        filters = positive_integer("filters", filters)
        expansion = positive_integer("expansion", expansion)
        kernel_size = positive_integer("kernel_size", kernel_size)
        strides = positive_integer("strides", strides)
        one_of("shortcut", shortcut, SHORTCUTS)
        super().__init__(**kwargs)
        self.filters = filters
        self.expansion = expansion
        self.kernel_size = kernel_size
        self.strides = strides
        self.squeeze_units = squeeze_units
        self.activation = keras.activations.get(activation)
        self.squeeze_activation = keras.activations.get(squeeze_activation)
        self.gate_activation = keras.activations.get(gate_activation)
        self.shortcut = shortcut
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape):
        channels = input_shape[-1]
        self.expand = None
        if self.expansion != channels:
            self.expand = self._pointwise(self.expansion, "expand")
            self.expand_normalization = self._normalization("expand_normalization")
        self.depthwise = keras.layers.DepthwiseConv2D(
            self.kernel_size,
            strides=self.strides,
            use_bias=False,
            depthwise_initializer="he_normal",
            depthwise_regularizer=self.kernel_regularizer,
            dtype=self.dtype_policy,
            name="depthwise",
        )
        self.depthwise_normalization = self._normalization("depthwise_normalization")
        self.squeeze_excitation = None
        if self.squeeze_units is not None:
            self.squeeze_excitation = SqueezeExcitation(
                self.squeeze_units,
                activation=self.squeeze_activation,
                gate_activation=self.gate_activation,
                kernel_regularizer=self.kernel_regularizer,
                dtype=self.dtype_policy,
                name="squeeze_excitation",
            )
        self.project = self._pointwise(self.filters, "project")
        self.project_normalization = self._normalization("project_normalization")
        self.adds_input = self.strides == 1 and self.filters == channels
        self._build_sublayers(input_shape)

    def _build_sublayers(self, input_shape):
        expanded = (*input_shape[:-1], self.expansion)
        if self.expand is not None:
            self.expand.build(input_shape)
            self.expand_normalization.build(expanded)
        self.depthwise.build(expanded)
        self.depthwise_normalization.build(expanded)
        if self.squeeze_excitation is not None:
            self.squeeze_excitation.build(expanded)
        self.project.build(expanded)
        self.project_normalization.build((*input_shape[:-1], self.filters))

    def _pointwise(self, filters, name):
        return keras.layers.Conv2D(
            filters,
            1,
            use_bias=False,
            kernel_initializer="he_normal",
            kernel_regularizer=self.kernel_regularizer,
            dtype=self.dtype_policy,
            name=name,
        )

    def _normalization(self, name):
        return keras.layers.BatchNormalization(
            momentum=0.9, epsilon=1e-5, dtype=self.dtype_policy, name=name
        )

    def call(self, inputs, training=None):
        x = inputs
        if self.expand is not None:
            x = normalized(self.expand, self.expand_normalization, x, training)
            x = self.activation(x)
        x = normalized(self.depthwise, self.depthwise_normalization, x, training)
        x = self.activation(x)
        if self.squeeze_excitation is not None:
            x = self.squeeze_excitation(x)
        x = normalized(self.project, self.project_normalization, x, training)
        return x + self._cropped(inputs) if self.adds_input else x

    def _cropped(self, inputs):
        lost = self.kernel_size - 1
        if not lost:
            return inputs
        before = 0 if self.shortcut == "top_left" else lost // 2
        kept = slice(before, before - lost or None)
        return inputs[:, kept, kept, :]

    def window_steps(self):
        gates = [] if self.squeeze_units is None else [None]
        return [WindowStep(self.kernel_size, self.strides), *gates]

    def multiply_adds(self, input_shape):
        _, height, width, _ = input_shape
        _, rows, columns, _ = self.compute_output_shape(input_shape)
        total = rows * columns * self.expansion * (self.kernel_size**2 + self.filters)
        if self.expand is not None:
            total += height * width * input_shape[-1] * self.expansion
        if self.squeeze_excitation is not None:
            total += self.squeeze_excitation.multiply_adds((self.expansion,))
        return total

    def compute_output_shape(self, input_shape):
        sizes = [self._output_size(size) for size in input_shape[1:3]]
        return (input_shape[0], *sizes, self.filters)

    def _output_size(self, size):
        if size is None:
            return None
        if size < self.kernel_size:
            raise ValueError(
                f"Expected a map of at least {self.kernel_size} x {self.kernel_size} "
                f"cells. Received: {size} rows or columns at layer {self.name!r}"
            )
        return (size - self.kernel_size) // self.strides + 1

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "expansion": self.expansion,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "squeeze_units": self.squeeze_units,
            "activation": keras.activations.serialize(self.activation),
            "squeeze_activation": keras.activations.serialize(self.squeeze_activation),
            "gate_activation": keras.activations.serialize(self.gate_activation),
            "shortcut": self.shortcut,
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }
