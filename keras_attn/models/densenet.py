"""The DenseNet of the class-embedding paper."""

import functools

from keras import layers

from keras_attn.models import building

GROWTH = 12
LAYERS_PER_STAGE = 16


@building.network_with_row
def dn100(inputs, reduce_third, attach, decay):
    """DN100: DenseNet-BC, growth 12, of the paper's table 1, with one of its rows.

    Stem: 3x3 convolution to 24. Four stages of 16 layers BN-ReLU-1x1(48)-BN-ReLU-
    3x3(12); after stages 1 and 2 a transition BN-ReLU-1x1 to half the width and a 2x2
    average; stage 3 closes with BN-ReLU, after which the row's block stands. All
    convolutions carry biases, and so do the block's value and shortcut maps.
    `extra_reduction` adds a 2x2 average at the end of stage 3. Other arguments and
    outputs as in `keras_attn.models.cifar_resnet`.
    """
    convolution = functools.partial(building.convolution, use_bias=True, decay=decay)
    x = convolution(inputs, 24, 3, "stem")
    for stage in (1, 2):
        x = _dense_stage(x, stage, convolution)
        x = building.normalized_relu(x, f"transition{stage}")
        x = convolution(x, x.shape[-1] // 2, 1, f"transition{stage}_conv")
        x = layers.AveragePooling2D(2, name=f"transition{stage}_pool")(x)
        x = layers.Identity(name=f"stage{stage}")(x)
    x = _dense_stage(x, 3, convolution)
    x = building.normalized_relu(x, "stage3_closing")
    if reduce_third:
        x = layers.AveragePooling2D(2, name="stage3_pool")(x)
    x = layers.Identity(name="stage3")(x)
    x, patch_logits = attach(x, use_bias=True)
    x = layers.Identity(name="stage4")(_dense_stage(x, 4, convolution))
    return building.normalized_relu(x, "final"), patch_logits


def _dense_stage(inputs, stage, convolution):
    x = inputs
    for layer in range(1, LAYERS_PER_STAGE + 1):
        name = f"stage{stage}_layer{layer}"
        new = building.normalized_relu(x, f"{name}_1")
        new = convolution(new, 4 * GROWTH, 1, f"{name}_conv1")
        new = building.normalized_relu(new, f"{name}_2")
        new = convolution(new, GROWTH, 3, f"{name}_conv2")
        x = layers.Concatenate(name=f"{name}_concat")([x, new])
    return x
