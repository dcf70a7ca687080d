"""The pre-activation bottleneck ResNets of the class-embedding paper."""

from collections.abc import Callable, Sequence

import keras
from keras import layers

from keras_attn._checks import one_of
from keras_attn.layers.margin_softmax import MarginSoftmax
from keras_attn.layers.perturbed_argmax import PerturbedArgmax
from keras_attn.models import building

# The constants of the paper's ablation (section 4.1), estimated there from a trained
# ResNet20: margin mu, scale kappa, inverse temperature epsilon, samples N.
ABLATION = {"margin": 2.5, "scale": 17.0, "inverse_temperature": 1.0}
ABLATION_SAMPLES = 600

ACTIVATIONS = ("bn_relu", "margin_softmax", "perturbed_argmax")


def cifar_resnet(
    bottleneck_widths: Sequence[int],
    output_widths: Sequence[int],
    strides: Sequence[int],
    blocks_per_stage: int,
    input_shape: tuple = (32, 32, 3),
    num_classes: int = 10,
    row: building.Row = "baseline",
    activation: str | Callable[[str], keras.Layer] = "bn_relu",
    weight_decay: float = 0.0,
    extra_reduction: bool | None = None,
    input_tensor=None,
    name: str = "cifar_resnet",
) -> keras.Model:
    """Bottleneck ResNet with pre-activations, and a row of the paper's table.

    Stem: 3x3 convolution (with bias), BN, ReLU. Block: BN-ReLU-1x1, BN-ReLU-3x3,
    activation-1x1; the first block of all has no leading BN-ReLU; the first block of
    a stage adds a 1x1 projection of its raw input. Then BN-ReLU, global average,
    dense. The row's block stands before the last stage. Layers named `stage1`,
    `stage2`, ... give the features after each stage.

    Args:
        bottleneck_widths, output_widths, strides: One value per stage.
        blocks_per_stage: Blocks in every stage.
        input_shape: `(height, width, channels)`.
        num_classes: Number of classes.
        row: `"baseline"`, `"aux"`, `"class_embedding"` or
            `"class_embedding_concat"`.
        activation: What follows every 3x3 convolution of a block: `"bn_relu"`,
            `"margin_softmax"`, `"perturbed_argmax"` (the paper's constants), or a
            callable that takes a layer name and returns a layer.
        weight_decay: Coefficient of the L2 penalty on kernels.
        extra_reduction: Stride 2 in stage 1; `None`: for images above 48 pixels.
        input_tensor: Tensor to build on instead of a new input.
        name: Name of the model.

    Returns:
        Functional model with the outputs `logits` and, but for the baseline,
        `patch_logits`.
    """
    one_of("row", row, building.ROWS)
    inputs = building.image_input(input_shape, input_tensor)
    reduce_first = building.needs_extra_reduction(inputs, extra_reduction)
    stages = list(zip(bottleneck_widths, output_widths, strides, strict=True))
    x = building.convolution(inputs, 16, 3, "stem", use_bias=True, decay=weight_decay)
    x = building.normalized_relu(x, "stem")
    patch_logits = None
    for stage, (bottleneck, width, stride) in enumerate(stages, 1):
        if stage == len(stages):
            x, patch_logits = building.attach_row(
                x, row, num_classes, decay=weight_decay
            )
        if stage == 1 and reduce_first:
            stride = 2
        for block in range(1, blocks_per_stage + 1):
            x = _bottleneck_block(
                x,
                bottleneck,
                width,
                stride if block == 1 else 1,
                f"stage{stage}_block{block}",
                project=block == 1,
                activate_input=stage + block > 2,
                activation=activation,
                decay=weight_decay,
            )
        x = layers.Identity(name=f"stage{stage}")(x)
    x = building.normalized_relu(x, "final")
    return building.classifier(inputs, x, patch_logits, num_classes, name, weight_decay)


def _bottleneck_block(
    inputs,
    bottleneck,
    width,
    stride,
    name,
    *,
    project,
    activate_input,
    activation,
    decay,
):
    x = building.normalized_relu(inputs, f"{name}_1") if activate_input else inputs
    x = building.convolution(
        x, bottleneck, 1, f"{name}_conv1", strides=stride, decay=decay
    )
    x = building.normalized_relu(x, f"{name}_2")
    x = building.convolution(x, bottleneck, 3, f"{name}_conv2", decay=decay)
    x = _activate(x, activation, f"{name}_3")
    x = building.convolution(x, width, 1, f"{name}_conv3", decay=decay)
    if project:
        inputs = building.convolution(
            inputs, width, 1, f"{name}_projection", strides=stride, decay=decay
        )
    return layers.Add(name=f"{name}_add")([inputs, x])


def _activate(inputs, activation, name):
    if activation == "bn_relu":
        return building.normalized_relu(inputs, name)
    if activation == "margin_softmax":
        return MarginSoftmax(**ABLATION, name=f"{name}_margin_softmax")(inputs)
    if activation == "perturbed_argmax":
        return PerturbedArgmax(
            **ABLATION, samples=ABLATION_SAMPLES, name=f"{name}_perturbed_argmax"
        )(inputs)
    if callable(activation):
        return activation(name)(inputs)
    raise ValueError(
        f"Expected `activation` to be one of {ACTIVATIONS} or a callable. "
        f"Received: activation={activation!r}"
    )


def _four_stages(blocks_per_stage, name, options):
    return cifar_resnet(
        (32, 64, 128, 128),
        (64, 128, 128, 256),
        (1, 2, 2, 1),
        blocks_per_stage,
        name=name,
        **options,
    )


def rn26(**options) -> keras.Model:
    """RN26 of the paper's table 1: four stages of two bottleneck blocks."""
    return _four_stages(2, "rn26", options)


def rn38(**options) -> keras.Model:
    """RN38 of the paper's table 1: four stages of three bottleneck blocks."""
    return _four_stages(3, "rn38", options)


def resnet20(**options) -> keras.Model:
    """The three-stage, two-block bottleneck ResNet20 of the ablation (figure 3)."""
    return cifar_resnet(
        (16, 64, 128), (64, 128, 256), (1, 2, 2), 2, name="resnet20", **options
    )
