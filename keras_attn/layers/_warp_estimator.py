"""The network inside `VolumetricTransformer` that sees all channels at once.

Tensors are `(batch, channels, height, width, features)`: every channel of the map is a
map of its own with several features.
"""

import keras
from keras import ops

from keras_attn.ops.precision import float_dtype
from keras_attn.ops.resize import resize_bilinear


class ChannelMixing(keras.layers.Layer):
    """Squeeze or expansion: new channels as weighted sums of the old ones.

    Volumetric Transformer Networks, section 3.3: one matrix `W_cs` or `W_ce` on the
    channels, the same at every cell and for every feature.

    Args:
        units: Number of new channels.
        kernel_regularizer: Regularizer of the matrix.

    Input shape: `(batch, channels, ...)`, all sizes but the batch's and the cells'
        known.

    Output shape: `(batch, units, ...)`.
    """

    def __init__(self, units, kernel_regularizer=None, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.kernel_regularizer = kernel_regularizer

    def build(self, input_shape):
        self.kernel = self.add_weight(
            name="kernel",
            shape=(input_shape[1], self.units),
            initializer="glorot_uniform",
            regularizer=self.kernel_regularizer,
        )

    def call(self, inputs):
        channels, *cells = ops.shape(inputs)[1:]
        columns = 1
        for size in cells:
            columns = columns * size
        # No transposition: the matrix stands to the left of the channels.
        matrix = ops.transpose(ops.cast(self.kernel, inputs.dtype))
        mixed = ops.matmul(matrix, ops.reshape(inputs, (-1, channels, columns)))
        return ops.reshape(mixed, (-1, self.units, *cells))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.units, *input_shape[2:])


class SharedConvolution(keras.layers.Layer):
    """3x3 convolution, batch normalisation and ReLU, shared by all channels.

    Args:
        filters: Number of output features.
        kernel_regularizer: Regularizer of the kernel.

    Input shape: `(batch, channels, height, width, features)`.

    Output shape: `(batch, channels, height, width, filters)`.
    """

    def __init__(self, filters, kernel_regularizer=None, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_regularizer = kernel_regularizer

    def build(self, input_shape):
        self.convolution = keras.layers.Conv2D(
            self.filters,
            3,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            kernel_regularizer=self.kernel_regularizer,
            data_format="channels_last",
            dtype=self.dtype_policy,
            name="convolution",
        )
        self.convolution.build((None, *input_shape[2:]))
        self.normalization = keras.layers.BatchNormalization(
            momentum=0.9, epsilon=1e-5, dtype=self.dtype_policy, name="normalization"
        )
        self.normalization.build((None, *input_shape[2:4], self.filters))

    def call(self, inputs, training=None):
        outputs = self.convolution(fold_channels(inputs))
        outputs = ops.relu(self.normalization(outputs, training=training))
        return unfold_channels(outputs, inputs.shape[1])

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)


class WarpEstimator(keras.layers.Layer):
    """Encoder and decoder over the cells and over the channels.

    Volumetric Transformer Networks, figure 3. A level of the encoder is a shared
    convolution, a squeeze of the channels and max-pooling by two (an odd row or column
    more counts as a cell); a level of the decoder is a shared convolution, an expansion
    of the channels and bilinear upsampling to the size before the pooling. There are
    no connections between the two. The last, linear layer starts at zero.

    Args:
        outputs: Number of outputs for every channel and cell.
        filters: Widths of the convolutions of the encoder. Those of the decoder are
            the same in reverse, without the last and with the first twice.
        channels: Numbers of channels after each squeeze, or `None`: no mixing.
        kernel_regularizer: Regularizer of all kernels and mixing matrices.

    Input shape: `(batch, channels, height, width, features)`.

    Output shape: `(batch * channels, height, width, outputs)`, the channels of an
        image one after the other; in float32 at least.
    """

    def __init__(self, outputs, filters, channels, kernel_regularizer=None, **kwargs):
        super().__init__(**kwargs)
        self.outputs = outputs
        self.filters = filters
        self.channels = channels
        self.kernel_regularizer = kernel_regularizer

    def build(self, input_shape):
        widths = [*self.filters, *self.filters[-2::-1], self.filters[0]]
        squeezed = self.channels or ()
        mixed = [*squeezed, *squeezed[-2::-1], input_shape[1]]
        options = {
            "kernel_regularizer": self.kernel_regularizer,
            "dtype": self.dtype_policy,
        }
        self.convolutions, self.mixings = [], []
        shape = tuple(input_shape)
        for level, width in enumerate(widths):
            convolution = SharedConvolution(
                width, name=f"convolution_{level}", **options
            )
            convolution.build(shape)
            shape = (*shape[:-1], width)
            self.convolutions.append(convolution)
            if self.channels is not None:
                mixing = ChannelMixing(mixed[level], name=f"mixing_{level}", **options)
                mixing.build(shape)
                shape = mixing.compute_output_shape(shape)
                self.mixings.append(mixing)
        # Half precision would round displacements to parts of a cell.
        options["dtype"] = float_dtype(self.compute_dtype)
        self.head = keras.layers.Dense(
            self.outputs, kernel_initializer="zeros", name="head", **options
        )
        self.head.build((None, widths[-1]))

    def call(self, inputs, training=None):
        depth = len(self.filters)
        maps, sizes = inputs, []
        for level in range(2 * depth):
            maps = self.convolutions[level](maps, training=training)
            if self.mixings:
                maps = self.mixings[level](maps)
            channels = maps.shape[1]
            if level < depth:
                sizes.append(ops.shape(maps)[2:4])
                # A `pool_size` of 2 without strides fails on JAX (Keras 3.15).
                pooled = ops.max_pool(
                    fold_channels(maps), (2, 2), (2, 2), "same", "channels_last"
                )
            else:
                pooled = resize_bilinear(fold_channels(maps), sizes.pop())
            maps = unfold_channels(pooled, channels)
        # All cells in one row: XLA on CPUs takes ten times as long for the gradient
        # of a kernel that is applied along several axes.
        height, width, features = ops.shape(maps)[2:]
        outputs = self.head(ops.reshape(maps, (-1, features)))
        return ops.reshape(outputs, (-1, height, width, self.outputs))

    def multiply_adds(self, input_shape):
        """Multiply-adds of convolutions, channel mixing and the last layer."""
        height, width = input_shape[2:4]
        sizes = [(height, width)]
        for _ in self.filters:
            height, width = -(-height // 2), -(-width // 2)
            sizes.append((height, width))
        sizes = [*sizes[:-1], *sizes[:0:-1]]
        channels, total = input_shape[1], 0
        for level, (height, width) in enumerate(sizes):
            kernel = self.convolutions[level].convolution.kernel.shape
            total += channels * height * width * 9 * kernel[-2] * kernel[-1]
            if self.mixings:
                before, channels = self.mixings[level].kernel.shape
                total += before * channels * height * width * kernel[-1]
        height, width = input_shape[2:4]
        return total + channels * height * width * kernel[-1] * self.outputs

    def compute_output_shape(self, input_shape):
        batch, channels, height, width, _ = input_shape
        folded = None if batch is None else batch * channels
        return (folded, height, width, self.outputs)


def fold_channels(maps):
    """`(batch, channels, ...)` to `(batch * channels, ...)`."""
    return ops.reshape(maps, (-1, *ops.shape(maps)[2:]))


def unfold_channels(maps, channels):
    """`(batch * channels, ...)` to `(batch, channels, ...)`."""
    return ops.reshape(maps, (-1, channels, *ops.shape(maps)[1:]))
