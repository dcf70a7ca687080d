"""AnchorNet-95: one localisation branch with a receptive field of 95 pixels."""

import keras
from keras import layers

from keras_attn.layers.class_evidence import ClassEvidence
from keras_attn.layers.valid_bottleneck import ValidBottleneck
from keras_attn.models import building

RECEPTIVE_FIELD = 95
STEM_WIDTH = 16
# Expansion relative to the input, filters, stride. All depthwise kernels are 3 x 3.
BLOCKS = (
    (1, 16, 2),
    (3, 24, 2),
    (4, 24, 1),
    (4, 48, 1),
    (2, 96, 1),
    (1.5, 96, 1),
    (1.5, 96, 1),
)
FEATURES = 512


def anchornet95(
    num_classes: int = 1000,
    input_shape: tuple = (224, 224, 3),
    input_tensor=None,
    folded: bool = False,
    weight_decay: float = 0.0,
    name: str = "anchornet95",
) -> keras.Model:
    """The localiser of the early-exit classifier.

    "Localizing Semantic Patches for Accelerating Image Classification" (ICME 2022),
    the later version of AnchorNet, without attention. A 3x3 convolution with stride
    2, seven `ValidBottleneck`s with swish and with squeeze-excitation on a quarter of
    the input's width, a linear 1x1 convolution (with bias) to 512 features, global
    average, dense layer. Nothing is padded: but for squeeze-excitation, which scales
    all cells equally, cell `(i, j)` sees the rows `8 i` to `8 i + 94` and the columns
    `8 j` to `8 j + 94` of the image.

    With 1000 classes and images of 224 x 224 it has 674,696 trainable parameters and
    0.0605 G multiply-adds up to the logits. The authors count 674,984: their first
    block owns an expansion of 288 parameters that is never used. The evidence of all
    1000 classes costs 0.148 G more, where it is asked for.

    The 1x1 convolution is linear and so is all that follows, so the classifier can
    take it in. `folded=True` leaves it out: the same function (see
    `keras_attn.convert.load_anchornet95`) for 0.046 G up to the features and 0.028 G
    for logits and evidence.

    Args:
        num_classes: Number of classes.
        input_shape: `(height, width, 3)`, each at least 95 or `None`.
        input_tensor: Tensor of normalised images to build on instead of a new input.
        folded: Whether to leave out the 1x1 convolution to 512 features.
        weight_decay: Coefficient of the L2 penalty on kernels.
        name: Name of the model.

    Returns:
        Functional model with the float32 outputs `logits` and, with the same values,
        `logits_95`, both `(batch, num_classes)`, and `evidence_95` `(batch, rows,
        columns, num_classes)`: class activation map plus bias, divided by the number
        of cells, so that its sum over the cells is `logits`. Of an image of 224 x 224
        it has 17 rows.

    Raises:
        ValueError: If the images have other than 3 channels or fewer than 95 rows or
            columns.

    Example:

    >>> model = anchornet95(num_classes=10, input_shape=(128, 160, 3))
    >>> model.output["evidence_95"].shape
    (None, 5, 9, 10)
    """
    inputs = building.image_input(input_shape, input_tensor)
    building.check_images(inputs, RECEPTIVE_FIELD)
    regularizer = building.l2(weight_decay)
    x = building.unpadded_stem(inputs, STEM_WIDTH, "silu", weight_decay)
    for number, (expansion, filters, strides) in enumerate(BLOCKS, 1):
        width = x.shape[-1]
        x = ValidBottleneck(
            filters,
            expansion=int(expansion * width),
            strides=strides,
            squeeze_units=width // 4,
            activation="silu",
            squeeze_activation="silu",
            gate_activation="sigmoid",
            kernel_regularizer=regularizer,
            name=f"block_{number}",
        )(x)
    if not folded:
        x = layers.Conv2D(
            FEATURES,
            1,
            kernel_initializer="he_normal",
            kernel_regularizer=regularizer,
            name="features",
        )(x)
    branch = ClassEvidence(
        num_classes, kernel_regularizer=regularizer, dtype="float32", name="evidence_95"
    )(x)
    logits = layers.Identity(dtype="float32", name="logits")(branch["logits"])
    outputs = {
        "logits": logits,
        "logits_95": branch["logits"],
        "evidence_95": branch["evidence"],
    }
    (source,) = keras.utils.get_source_inputs(inputs)
    return keras.Model(source, outputs, name=name)
