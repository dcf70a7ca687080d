"""A convolution and the batch normalisation after it, as one at inference."""

import keras
from keras import ops


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
    if training and normalization.trainable:
        return normalization(convolution(inputs), training=training)
    dtype = convolution.compute_dtype
    scale = normalization.gamma / ops.sqrt(
        normalization.moving_variance + normalization.epsilon
    )
    shift = ops.cast(normalization.beta - normalization.moving_mean * scale, dtype)
    if isinstance(convolution, keras.layers.DepthwiseConv2D):
        convolve, per_channel = ops.depthwise_conv, scale[:, None]
    else:
        convolve, per_channel = ops.conv, scale
    outputs = convolve(
        ops.cast(inputs, dtype),
        ops.cast(convolution.kernel * per_channel, dtype),
        strides=convolution.strides,
        padding=convolution.padding,
    )
    # TensorFlow fuses `ops.add`, unlike `+`, with the convolution.
    return ops.add(outputs, shift)
