import keras
from keras import ops

from keras_attn.graph.window_steps import WindowStep
from keras_attn.ops.precision import float32_at_least
from keras_attn.ops.sampling import bilinear_sample


@keras.saving.register_keras_serializable(package="keras_attn")
class DeformableConv2D(keras.layers.Conv2D):
    """A convolution whose taps are displaced by learned offsets.

    Dai et al., "Deformable Convolutional Networks" (version 1), equations (2) to (4):

        y(p) = sum over taps n of w(p_n) x(p + p_n + dp_n(p)).

    The offsets `dp` are a convolution of the same input with the same window, two for
    each tap and shared by all channels. Between cells `x` is interpolated bilinearly,
    outside the map it is zero.

    A new layer is `keras.layers.Conv2D` with the same kernel and bias: the convolution
    that gives the offsets starts at zero. Change the name to put it in place of one,
    and assign `kernel` and `bias` to put it in place of a trained one.

    Args:
        filters, kernel_size, strides, padding, dilation_rate, activation, use_bias,
            kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer:
            Arguments of `keras.layers.Conv2D`, whose other arguments are keywords; but
            maps are `"channels_last"` and `groups` is 1. The regularizers also hold for
            the convolution that gives the offsets.

    Call arguments:
        inputs: A feature map.

    Input shape: `(batch, height, width, channels)`, any height and width.

    Output shape: that of `keras.layers.Conv2D`, in the layer's compute dtype. Offsets
        are added to coordinates in float32 at least, under any policy.

    Convention: that of `keras_attn.ops.sampling`; offsets are `(dy, dx)` in cells from
        the place of the tap in the plain convolution, taps in row-major order.

    Raises:
        ValueError: For another data format, several groups, or arguments that `Conv2D`
            refuses.

    Example:

    >>> layer = DeformableConv2D(8, 3, padding="same")
    >>> features = keras.random.normal((2, 14, 12, 32))
    >>> layer(features).shape, layer.sampling_offsets(features).shape
    ((2, 14, 12, 8), (2, 14, 12, 9, 2))

    Reference: [dai2017] arXiv:1703.06211, equations (2) to (4).
    """

    def __init__(
        self,
        filters,
        kernel_size=3,
        strides=1,
        padding="valid",
        dilation_rate=1,
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        **kwargs,
    ):
        super().__init__(
            filters,
            kernel_size,
            strides=strides,
            padding=padding,
            dilation_rate=dilation_rate,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            **kwargs,
        )
        if self.data_format != "channels_last" or self.groups != 1:
            raise ValueError(
                "Expected data_format='channels_last' and groups=1. Received: "
                f"data_format={self.data_format!r}, groups={self.groups}"
            )

    def build(self, input_shape):
        rows, columns = self.kernel_size
        self.offsets = keras.layers.Conv2D(
            2 * rows * columns,
            self.kernel_size,
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            kernel_initializer="zeros",
            kernel_regularizer=self.kernel_regularizer,
            bias_regularizer=self.bias_regularizer,
            data_format=self.data_format,
            dtype=self.dtype_policy,
            name="offsets",
        )
        self.offsets.build(input_shape)
        super().build(input_shape)

    def convolution_op(self, inputs, kernel):
        """The sum over the taps, before bias and activation."""
        offsets = self.sampling_offsets(inputs)
        height, width = ops.shape(inputs)[1:3]
        rows, columns, taps = ops.shape(offsets)[1:4]
        y = self._places(0, height, rows, offsets.dtype)
        y = ops.repeat(y, self.kernel_size[1], axis=1)
        x = self._places(1, width, columns, offsets.dtype)
        x = ops.tile(x, (1, self.kernel_size[0]))
        y = ops.expand_dims(y, 1) + offsets[..., 0]
        x = x + offsets[..., 1]
        # All taps at once, as if they were columns of a wider output.
        coordinates = ops.stack([y, x], axis=-1)
        coordinates = ops.reshape(coordinates, (-1, rows, columns * taps, 1, 2))
        sampled = bilinear_sample(inputs, coordinates, padding="zeros")
        channels = inputs.shape[-1]
        sampled = ops.reshape(sampled, (-1, rows, columns, taps * channels))
        return ops.matmul(sampled, ops.reshape(kernel, (taps * channels, self.filters)))

    def _places(self, axis, size, outputs, dtype):
        """Rows (or columns) of the plain convolution's taps, `(outputs, kernel)`."""
        kernel, stride = self.kernel_size[axis], self.strides[axis]
        dilation = self.dilation_rate[axis]
        before = 0
        if self.padding == "same":
            reach = (outputs - 1) * stride + (kernel - 1) * dilation + 1
            before = ops.maximum(reach - size, ops.zeros((), "int32")) // 2
        first = ops.arange(outputs, dtype="int32") * stride - before
        taps = ops.arange(kernel, dtype="int32") * dilation
        return ops.cast(ops.expand_dims(first, 1) + taps, dtype)

    def sampling_offsets(self, inputs):
        """Displacement of each tap from its place in the plain convolution.

        Returns:
            Tensor `(batch, rows, columns, taps, 2)`, float32 at least, see the class.
        """
        offsets = float32_at_least(self.offsets(inputs))
        rows, columns = ops.shape(offsets)[1:3]
        taps = self.kernel_size[0] * self.kernel_size[1]
        return ops.reshape(offsets, (-1, rows, columns, taps, 2))

    def window_steps(self):
        """The window of the plain convolution, from which offsets may lead away."""
        plain = WindowStep(
            self.kernel_size, self.strides, self.dilation_rate, self.padding
        )
        return [None, plain]

    def multiply_adds(self, input_shape):
        """Multiply-adds of both convolutions and the sampling of four neighbours."""
        _, rows, columns, _ = self.compute_output_shape(input_shape)
        taps, channels = self.kernel_size[0] * self.kernel_size[1], input_shape[-1]
        each = taps * channels * (self.filters + 2 * taps + 4)
        return rows * columns * each
