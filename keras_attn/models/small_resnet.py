"""A small residual network for training from scratch on a CPU."""

from collections.abc import Sequence

import keras
from keras import layers

from keras_attn.models import building, padded


def small_resnet(
    input_shape: tuple = (None, None, 3),
    num_classes: int = 1000,
    base_width: int = 32,
    blocks_per_stage: int = 2,
    strides: Sequence[int] = (1, 2, 2, 2),
    weight_decay: float = 0.0,
    input_tensor=None,
    name: str = "small_resnet",
) -> keras.Model:
    """ResNet-18's layout with pre-activations and half its width.

    Stem: 5x5 convolution and 3x3 maximum, both with stride 2. Four stages of basic
    blocks (He et al., "Identity Mappings in Deep Residual Networks"): BN-ReLU-3x3,
    BN-ReLU-3x3, and the shortcut; where stride or width changes, a 1x1 projection of
    the activated input. Widths double and sizes halve from stage to stage. Meant for
    images and patches of 48 to 224 pixels: 2.8 M parameters for 10 classes, and 0.24
    G multiply-adds at 160 x 160.

    Args:
        input_shape: `(height, width, channels)`; height and width may be `None`.
        num_classes: Number of classes.
        base_width: Channels of the first stage.
        blocks_per_stage: Blocks in every stage.
        strides: Stride of every stage, whose number it gives.
        weight_decay: Coefficient of the L2 penalty on kernels.
        input_tensor: Tensor of normalised images to build on instead of a new input.
        name: Name of the model.

    Returns:
        Functional model with the output `logits`, float32. Layers named `stage1`,
        `stage2`, ... give the features after each stage.
    """
    inputs = building.image_input(input_shape, input_tensor)
    x = padded.convolution(inputs, base_width, 5, "stem", 2, decay=weight_decay)
    x = padded.normalized_relu(x, "stem")
    x = padded.max_pool(x, "stem_pool")
    for stage, stride in enumerate(strides):
        for block in range(blocks_per_stage):
            x = building.preactivated_block(
                x,
                base_width * 2**stage,
                stride if block == 0 else 1,
                f"stage{stage + 1}_block{block + 1}",
                weight_decay,
                padded.convolution,
                padded.normalized_relu,
            )
        x = layers.Identity(name=f"stage{stage + 1}")(x)
    x = padded.normalized_relu(x, "final")
    return building.classifier(inputs, x, None, num_classes, name, weight_decay)
