"""A convolution and the batch normalisation after it, as one at inference."""

import keras
from keras import ops

from keras_attn.ops.convolutions import conv, depthwise_conv


def normalized(convolution, normalization, inputs, training):
    """`normalization(convolution(inputs))` of two built layers of a block.

    At inference the normalisation is the same linear map for all cells, so it goes
    into kernel and bias: two passes less over maps that are wide and cheap to make.

    Args:
        convolution: `Conv2D` or `DepthwiseConv2D` without bias and activation.
        normalization: `BatchNormalization` over the last axis.
        inputs: `(batch, height, width, channels)`.
        training: Whether to use the statistics of the batch.
    """
    dtype = convolution.compute_dtype
    kernel = convolution.kernel
    is_depthwise = isinstance(convolution, keras.layers.DepthwiseConv2D)
    folds = not (training and normalization.trainable)
    if folds:
        scale = normalization.gamma / ops.sqrt(
            normalization.moving_variance + normalization.epsilon
        )
        shift = ops.cast(normalization.beta - normalization.moving_mean * scale, dtype)
        kernel = kernel * (scale[:, None] if is_depthwise else scale)
    outputs = (depthwise_conv if is_depthwise else conv)(
        ops.cast(inputs, dtype),
        ops.cast(kernel, dtype),
        strides=convolution.strides,
        padding=convolution.padding,
        dilation_rate=convolution.dilation_rate,
    )
    # TensorFlow fuses `ops.add`, unlike `+`, with the convolution.
    return ops.add(outputs, shift) if folds else normalization(outputs, training=True)
