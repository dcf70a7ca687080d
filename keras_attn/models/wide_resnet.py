"""The wide residual network of the class-embedding paper."""

from keras import layers

from keras_attn.models import building


@building.network_with_row
def wrn16(inputs, reduce_first, attach, decay):
    """WRN16, widening factor 2, of the paper's table 1, with one of its rows.

    Stem: 3x3 convolution (with bias) to 16. Four stages of two pre-activation basic
    blocks, widths 32, 64, 128, 128, strides 1, 2, 2, 1; a 1x1 projection of the
    activated input only where width or stride changes. Then BN-ReLU, global average,
    dense. The row's block stands before stage 4. Arguments and outputs as in
    `keras_attn.models.cifar_resnet`.
    """
    x = building.convolution(inputs, 16, 3, "stem", use_bias=True, decay=decay)
    patch_logits = None
    stages = ((32, 2 if reduce_first else 1), (64, 2), (128, 2), (128, 1))
    for stage, (width, stride) in enumerate(stages, 1):
        if stage == len(stages):
            x, patch_logits = attach(x)
        for block in (1, 2):
            block_name = f"stage{stage}_block{block}"
            x = building.preactivated_block(
                x, width, stride if block == 1 else 1, block_name, decay
            )
        x = layers.Identity(name=f"stage{stage}")(x)
    return building.normalized_relu(x, "final"), patch_logits
