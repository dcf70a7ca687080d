import math

import keras
from keras import ops

from keras_attn._checks import positive_integer
from keras_attn.layers._blocks import register_block
from keras_attn.layers._maps import MapBlock


@register_block("eca")
@keras.saving.register_keras_serializable(package="keras_attn")
class EfficientChannelAttention(MapBlock):
    """Scales every channel by a gate computed from its neighbours' means.

    Wang et al., "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural
    Networks", 2019: `x * sigmoid(w * mean(x))`, with the mean over all cells and a
    convolution `w` without bias along the channels, in their order.

    Args:
        kernel_size: Number of channels that a gate sees, odd. `None`: the odd number
            near `(log2(channels) + 1) / 2`, and at least 3.
        gate_activation: Activation of the gate.
        kernel_regularizer: Regularizer of the kernel.

    Call arguments:
        inputs: A feature map.

    Input shape: `(batch, height, width, channels)`.

    Output shape: that of the input, in the layer's compute dtype.

    Raises:
        ValueError: If `kernel_size` is not a positive odd integer.

    Example:

    >>> EfficientChannelAttention()(keras.random.normal((2, 9, 7, 16))).shape
    (2, 9, 7, 16)

    Reference: [wang2019b] arXiv:1910.03151.
    """

    def __init__(
        self,
        kernel_size=None,
        gate_activation="sigmoid",
        kernel_regularizer=None,
        **kwargs,
    ):
        kernel_size = positive_integer("kernel_size", kernel_size, optional=True)
        if kernel_size is not None and kernel_size % 2 == 0:
            raise ValueError(
                "Expected `kernel_size` to be None or an odd integer. "
                f"Received: kernel_size={kernel_size}"
            )
        super().__init__(**kwargs)
        self.kernel_size = kernel_size
        self.gate_activation = keras.activations.get(gate_activation)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape):
        self.along_channels = keras.layers.Conv1D(
            1,
            self._kernel_size(input_shape[-1]),
            padding="same",
            activation=self.gate_activation,
            use_bias=False,
            kernel_regularizer=self.kernel_regularizer,
            data_format="channels_last",
            dtype=self.dtype_policy,
            name="along_channels",
        )
        self.along_channels.build((None, input_shape[-1], 1))

    def _kernel_size(self, channels):
        size = int((math.log2(channels) + 1) / 2)
        return self.kernel_size or max(3, size + 1 - size % 2)

    def call(self, inputs):
        mean = ops.mean(inputs, axis=(1, 2))
        gate = self.along_channels(mean[:, :, None])
        return inputs * ops.transpose(gate, (0, 2, 1))[:, None]

    def multiply_adds(self, input_shape):
        return input_shape[-1] * self._kernel_size(input_shape[-1])

    def get_config(self):
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "gate_activation": keras.activations.serialize(self.gate_activation),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }
