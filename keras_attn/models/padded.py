"""Convolutions padded equally on both sides, as in the published networks.

Keras's "same" pads a strided convolution by less before than after. With padding of
its own, weights learned elsewhere fit, and cells are centred on what they see.
"""

from keras import layers

from keras_attn.models.building import l2


def convolution(
    inputs, filters, size, name, strides=1, groups=1, dilation=1, decay=0.0
):
    """Convolution without bias, padded by half its window on every side."""
    return layers.Conv2D(
        filters,
        size,
        strides=strides,
        padding="same" if strides == 1 else "valid",
        groups=groups,
        dilation_rate=dilation,
        use_bias=False,
        kernel_initializer="he_normal",
        kernel_regularizer=l2(decay),
        name=name,
    )(pad(inputs, size, strides, name))


def max_pool(inputs, name):
    """3x3 maximum with stride 2 of features that are not negative."""
    return layers.MaxPooling2D(3, strides=2, name=name)(pad(inputs, 3, 2, name))


def pad(inputs, size, strides, name):
    if strides == 1 or size == 1:
        return inputs
    return layers.ZeroPadding2D(size // 2, name=f"{name}_padding")(inputs)


def normalize(inputs, name):
    """Batch normalisation with the constants of the published networks."""
    return layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, name=f"{name}_normalization"
    )(inputs)


def normalized_relu(inputs, name):
    return layers.ReLU(name=f"{name}_relu")(normalize(inputs, name))
