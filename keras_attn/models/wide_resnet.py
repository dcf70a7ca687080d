"""The wide residual network of the class-embedding paper."""

import keras
from keras import layers

from keras_attn._checks import one_of
from keras_attn.models import building


def wrn16(
    input_shape: tuple = (32, 32, 3),
    num_classes: int = 10,
    row: building.Row = "baseline",
    weight_decay: float = 0.0,
    extra_reduction: bool | None = None,
    input_tensor=None,
    name: str = "wrn16",
) -> keras.Model:
    """WRN16, widening factor 2, of the paper's table 1, with one of its rows.

    Stem: 3x3 convolution (with bias) to 16. Four stages of two pre-activation basic
    blocks, widths 32, 64, 128, 128, strides 1, 2, 2, 1; a 1x1 projection of the
    activated input only where width or stride changes. Then BN-ReLU, global average,
    dense. The row's block stands before stage 4. Arguments and outputs as in
    `keras_attn.models.cifar_resnet`.
    """
    one_of("row", row, building.ROWS)
    inputs = building.image_input(input_shape, input_tensor)
    reduce_first = building.needs_extra_reduction(inputs, extra_reduction)
    x = building.convolution(inputs, 16, 3, "stem", use_bias=True, decay=weight_decay)
    patch_logits = None
    stages = ((32, 2 if reduce_first else 1), (64, 2), (128, 2), (128, 1))
    for stage, (width, stride) in enumerate(stages, 1):
        if stage == len(stages):
            x, patch_logits = building.attach_row(
                x, row, num_classes, decay=weight_decay
            )
        for block in (1, 2):
            block_name = f"stage{stage}_block{block}"
            x = building.preactivated_block(
                x, width, stride if block == 1 else 1, block_name, weight_decay
            )
        x = layers.Identity(name=f"stage{stage}")(x)
    x = building.normalized_relu(x, "final")
    return building.classifier(inputs, x, patch_logits, num_classes, name, weight_decay)
