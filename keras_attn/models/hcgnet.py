"""HCGNet: modules of gated residuals under dense connectivity."""

from collections.abc import Sequence

import keras
from keras import layers

from keras_attn.layers.context_pooling import ContextPooling
from keras_attn.models import building, padded

# The squeeze cell: its 1x1 convolution has this many times the growth, its 3x3
# convolution this many groups.
SQUEEZE_WIDTH = 4
SQUEEZE_GROUPS = 4

# Width of the gates' hidden layers relative to their input, in modules and in
# transitions.
MODULE_GATE_RATIO = 2
TRANSITION_GATE_RATIO = 4


def hcgnet(
    growths: Sequence[int],
    depths: Sequence[int],
    input_shape: tuple = (None, None, 3),
    num_classes: int = 1000,
    weight_decay: float = 0.0,
    input_tensor=None,
    name: str = "hcgnet",
) -> keras.Model:
    """HCGNet for ImageNet, a DenseNet of gated modules.

    Yang et al., "Gated Convolutional Networks with Hybrid Connectivity for Image
    Classification". Every convolution comes after BN-ReLU. A module

    1. squeezes its input: `S` = 3x3 convolution in 4 groups to the growth, of a 1x1
       convolution to 4 times the growth,
    2. excites it at two scales: `U1`, `U2` = depthwise 3x3 convolutions of `S`, plain
       and with dilation 2, and pools them, `c1` and `c2` (`ContextPooling`),
    3. update gate: `h = tanh(BN(W [c1, c2] + b))`, `a1, a2` = softmax over the two of
       `W1 h + b1`, `W2 h + b2` in each channel,
    4. forget gate: `f = sigmoid(V2 tanh(BN(V1 pool(S) + d1)) + d2)`,
    5. appends `f * S + a1 * c1 + a2 * c2` to its input.

    What the update adds is thus one vector for all cells, as in the authors' released
    code, to which the widths and ratios are due that the paper does not print. A
    transition between stages is such a module that replaces its input, with a strided
    dense 3x3 convolution to half the channels, of a 1x1 convolution to three quarters.

    Args:
        growths: Channels that every module appends, one value per stage.
        depths: Modules in every stage.
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
    x = inputs
    for number, (filters, strides) in enumerate(((32, 2), (32, 1), (64, 1)), 1):
        stem = f"stem{number}"
        x = padded.convolution(x, filters, 3, stem, strides, decay=weight_decay)
        x = padded.normalized_relu(x, stem)
    x = padded.max_pool(x, "stem_pool")
    stages = list(zip(growths, depths, strict=True))
    for stage, (growth, depth) in enumerate(stages, 1):
        for module in range(1, depth + 1):
            x = hybrid_module(x, growth, f"stage{stage}_module{module}", weight_decay)
        x = layers.Identity(name=f"stage{stage}")(x)
        if stage < len(stages):
            x = transition(x, f"transition{stage}", weight_decay)
    x = padded.normalized_relu(x, "final")
    return building.classifier(inputs, x, None, num_classes, name, weight_decay)


def hybrid_module(inputs, growth, name, decay=0.0):
    """Appends `growth` gated channels to the inputs."""
    x = _activated_convolution(
        inputs, SQUEEZE_WIDTH * growth, 1, f"{name}_squeeze1", decay=decay
    )
    x = _activated_convolution(
        x, growth, 3, f"{name}_squeeze2", groups=SQUEEZE_GROUPS, decay=decay
    )
    x = gated_excitation(x, MODULE_GATE_RATIO, name, decay)
    return layers.Concatenate(name=f"{name}_concat")([inputs, x])


def transition(inputs, name, decay=0.0):
    """Halves channels, height and width."""
    channels = inputs.shape[-1]
    filters = channels // 2
    middle = channels - (channels - filters) // 2
    x = _activated_convolution(inputs, middle, 1, f"{name}_squeeze1", decay=decay)
    x = _activated_convolution(
        x, filters, 3, f"{name}_squeeze2", strides=2, decay=decay
    )
    return gated_excitation(x, TRANSITION_GATE_RATIO, name, decay)


def gated_excitation(inputs, ratio, name, decay=0.0):
    """Steps 2 to 4 of `hcgnet`: `f * S + a1 * c1 + a2 * c2`."""
    channels = inputs.shape[-1]
    regularizer = building.l2(decay)

    def dense(x, units, suffix, activation=None):
        return layers.Dense(
            units,
            activation=activation,
            kernel_regularizer=regularizer,
            name=f"{name}_{suffix}",
        )(x)

    def pool(x, suffix):
        return ContextPooling(regularizer, name=f"{name}_{suffix}")(x)

    def hidden(x, suffix):
        x = dense(x, x.shape[-1] // ratio, suffix)
        x = padded.normalize(x, f"{name}_{suffix}")
        return layers.Activation("tanh", name=f"{name}_{suffix}_tanh")(x)

    contexts = [
        pool(
            _activated_convolution(
                inputs,
                channels,
                3,
                f"{name}_excite{dilation}",
                groups=channels,
                dilation=dilation,
                decay=decay,
            ),
            f"context{dilation}",
        )
        for dilation in (1, 2)
    ]
    h = hidden(layers.Concatenate(name=f"{name}_contexts")(contexts), "update")
    # A softmax over two is the logistic function of their difference, and
    # a1 * c1 + a2 * c2 = c2 + a1 * (c1 - c2).
    difference = layers.Subtract(name=f"{name}_update_difference")(
        [dense(h, channels, "update1"), dense(h, channels, "update2")]
    )
    first = layers.Activation("sigmoid", name=f"{name}_update_gate")(difference)
    change = layers.Subtract(name=f"{name}_context_difference")(contexts)
    change = layers.Multiply(name=f"{name}_update_product")([first, change])
    forget = hidden(pool(inputs, "forget_context"), "forget")
    forget = dense(forget, channels, "forget_gate", "sigmoid")
    kept = layers.Multiply(name=f"{name}_kept")([inputs, forget])
    return layers.Add(name=f"{name}_output")([kept, contexts[1], change])


def _activated_convolution(
    inputs, filters, size, name, strides=1, groups=1, dilation=1, decay=0.0
):
    x = padded.normalized_relu(inputs, name)
    return padded.convolution(x, filters, size, name, strides, groups, dilation, decay)


def hcgnet_b(name: str = "hcgnet_b", **options) -> keras.Model:
    """HCGNet-B: 12.85 M parameters; the paper prints 12.9 M."""
    return hcgnet((32, 48, 64, 96), (3, 6, 12, 8), name=name, **options)


def hcgnet_c(name: str = "hcgnet_c", **options) -> keras.Model:
    """HCGNet-C: 42.15 M parameters; the paper prints 42.2 M."""
    return hcgnet((48, 56, 72, 112), (6, 12, 18, 14), name=name, **options)
