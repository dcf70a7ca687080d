"""ResNeXt: bottleneck ResNets with grouped 3x3 convolutions."""

from collections.abc import Sequence

import keras
from keras import layers

from keras_attn.models import building, padded


def resnext(
    depths: Sequence[int] = (3, 4, 6, 3),
    groups: int = 32,
    group_width: int = 4,
    input_shape: tuple = (None, None, 3),
    num_classes: int = 1000,
    weight_decay: float = 0.0,
    input_tensor=None,
    name: str = "resnext",
) -> keras.Model:
    """ResNeXt of any depth and cardinality.

    Xie et al., "Aggregated Residual Transformations for Deep Neural Networks", form
    (c) of its figure 3: 1x1 convolution to `groups * group_width` channels, grouped
    3x3 convolution with the stride, 1x1 convolution to twice the width of its default
    64 times 4, and the shortcut, projected where its shape differs; every convolution
    with batch normalisation. Both widths double from stage to stage. Stem: 7x7
    convolution and 3x3 maximum, both with stride 2. `groups=1, group_width=64` is the
    ResNet-50 with the stride in the 3x3 convolution.

    Args:
        depths: Blocks in every stage.
        groups, group_width: Number of groups (cardinality) and their channels in the
            first stage.
        input_shape: `(height, width, channels)`; height and width may be `None`.
        num_classes: Number of classes.
        weight_decay: Coefficient of the L2 penalty on kernels.
        input_tensor: Tensor of normalised images to build on instead of a new input.
        name: Name of the model.

    Returns:
        Functional model with the output `logits`, float32. Layers named `stage1`,
        `stage2`, ... give the features after each stage.
    """
    inputs = building.image_input(input_shape, input_tensor)
    x = padded.convolution(inputs, 64, 7, "stem", strides=2, decay=weight_decay)
    x = padded.normalized_relu(x, "stem")
    x = padded.max_pool(x, "stem_pool")
    for stage, depth in enumerate(depths):
        for block in range(depth):
            x = bottleneck_block(
                x,
                groups * group_width * 2**stage,
                256 * 2**stage,
                f"stage{stage + 1}_block{block + 1}",
                groups=groups,
                strides=2 if stage > 0 and block == 0 else 1,
                decay=weight_decay,
            )
        x = layers.Identity(name=f"stage{stage + 1}")(x)
    return building.classifier(inputs, x, None, num_classes, name, weight_decay)


def bottleneck_block(inputs, width, filters, name, groups=1, strides=1, decay=0.0):
    """One block: `relu(shortcut + conv1x1(conv3x3(conv1x1(x))))`, normalised."""
    x = padded.convolution(inputs, width, 1, f"{name}_conv1", decay=decay)
    x = padded.normalized_relu(x, f"{name}_conv1")
    x = padded.convolution(
        x, width, 3, f"{name}_conv2", strides=strides, groups=groups, decay=decay
    )
    x = padded.normalized_relu(x, f"{name}_conv2")
    x = padded.convolution(x, filters, 1, f"{name}_conv3", decay=decay)
    x = padded.normalize(x, f"{name}_conv3")
    shortcut = inputs
    if strides != 1 or inputs.shape[-1] != filters:
        shortcut = padded.convolution(
            inputs, filters, 1, f"{name}_projection", strides=strides, decay=decay
        )
        shortcut = padded.normalize(shortcut, f"{name}_projection")
    x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.ReLU(name=f"{name}_relu")(x)


def resnext50(name: str = "resnext50", **options) -> keras.Model:
    """ResNeXt-50 (32x4d): 25,028,904 parameters, 4.23 G multiply-adds at 224 x 224."""
    return resnext((3, 4, 6, 3), 32, 4, name=name, **options)
