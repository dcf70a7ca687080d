"""AnchorNet: three localisation branches with known receptive fields."""

import keras
from keras import layers

from keras_attn.layers.branch_decision import BranchDecision
from keras_attn.layers.class_evidence import ClassEvidence
from keras_attn.layers.spatial_attention_branch import SpatialAttentionBranch
from keras_attn.layers.valid_bottleneck import ValidBottleneck
from keras_attn.models import building

# Kernel, expansion, filters, squeeze-excitation, activation, stride: table 1.
HEAD = (
    (3, 16, 16, False, "relu", 2),
    (3, 72, 24, False, "relu", 2),
    (1, 88, 24, False, "relu", 1),
    (1, 96, 40, True, "hard_silu", 1),
    (1, 240, 40, True, "hard_silu", 1),
    (1, 240, 40, True, "hard_silu", 1),
    (1, 120, 48, True, "hard_silu", 1),
    (3, 144, 48, True, "hard_silu", 1),
    (3, 288, 96, True, "hard_silu", 1),
)

# Kernel and expansion of the bottlenecks of each branch, by patch size: table 2.
BRANCHES = {
    63: ((3, 480), (1, 576)),
    95: ((3, 480), (5, 576)),
    111: ((5, 480), (5, 576)),
}
ATTENTION_EXPANSION = 192
WIDTH = 96

SQUEEZE_BASES = ("input", "expansion")


def anchornet(
    input_shape=(224, 224, 3),
    num_classes=1000,
    branches=(63, 95, 111),
    squeeze_ratio=0.25,
    squeeze_base="input",
    shortcut="top_left",
    aggregation="sum",
    evidence="weighted",
    auxiliary=False,
    weight_decay=0.0,
    input_tensor=None,
    name="anchornet",
):
    """AnchorNet, a light-weight localiser and classifier.

    AnchorNet paper, section 3.2, tables 1 and 2. No convolution is padded, so that
    cell `(i, j)` of branch 63 sees the rows `8 i` to `8 i + 62` and the columns `8 j`
    to `8 j + 62` of the image and, but for squeeze-excitation and attention, which
    scale all cells alike, nothing else; likewise 95 and 111.

    Args:
        input_shape: `(height, width, 3)`, at least as large as the largest branch's
            patches; height and width may be `None`.
        num_classes: Number of classes.
        branches: Patch sizes among 63, 95 and 111, at least one.
        squeeze_ratio: Hidden width of the squeeze-excitation relative to
            `squeeze_base`; `None`: without squeeze-excitation.
        squeeze_base: `"input"`, the bottleneck's input as in the authors' later code,
            or `"expansion"` as in MobileNetV3.
        shortcut: How `ValidBottleneck` crops its shortcut.
        aggregation: `"sum"` or `"mean"`, see `ClassEvidence`.
        evidence: `"weighted"` by the attention, what a cell contributes, or `"raw"`.
        auxiliary: Whether to add the auxiliary heads that the paper trains the
            attention branches with.
        weight_decay: Coefficient of the L2 penalty on kernels.
        input_tensor: Tensor of normalised images to build on instead of a new input.
        name: Name of the model.

    Returns:
        Functional model with the outputs `logits`, those of the branch that decides,
        and for every branch, such as 63, `logits_63` `(batch, classes)`,
        `evidence_63` `(batch, rows, columns, classes)`, `attention_63`
        `(batch, rows, columns, 1)` and perhaps `auxiliary_63` `(batch, classes)`. All
        are float32. Of an image of 224 x 224 the maps have 21, 17 and 15 rows.

    Raises:
        ValueError: If an argument is not as above, or the image is too small.

    Example:

    >>> model = anchornet((128, 160, 3), num_classes=10)
    >>> model.output["evidence_111"].shape
    (None, 3, 7, 10)
    """
    _check(branches, squeeze_base, evidence)
    inputs = building.image_input(input_shape, input_tensor)
    _check_size(inputs, max(branches))
    regularizer = keras.regularizers.L2(weight_decay) if weight_decay else None

    def bottleneck(x, kernel, expansion, filters, squeezes, activation, stride, name):
        base = x.shape[-1] if squeeze_base == "input" else expansion
        squeezes = squeezes and squeeze_ratio is not None
        return ValidBottleneck(
            filters,
            expansion,
            kernel_size=kernel,
            strides=stride,
            squeeze_units=max(1, int(base * squeeze_ratio)) if squeezes else None,
            activation=activation,
            shortcut=shortcut,
            kernel_regularizer=regularizer,
            name=name,
        )(x)

    x = layers.Conv2D(
        HEAD[0][2],
        3,
        strides=2,
        use_bias=False,
        kernel_initializer="he_normal",
        kernel_regularizer=regularizer,
        name="stem",
    )(inputs)
    x = layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, name="stem_normalization"
    )(x)
    x = layers.Activation("hard_silu", name="stem_activation")(x)
    for number, row in enumerate(HEAD, 1):
        x = bottleneck(x, *row, f"head_{number}")
    outputs = {}
    for size in sorted(branches):
        features = x
        for number, (kernel, expansion) in enumerate(BRANCHES[size], 1):
            features = bottleneck(
                features,
                *(kernel, expansion, WIDTH, True, "hard_silu", 1),
                f"branch_{size}_{number}",
            )
        attended = bottleneck(
            features,
            *(1, ATTENTION_EXPANSION, WIDTH, True, "hard_silu", 1),
            f"attention_features_{size}",
        )
        attention = SpatialAttentionBranch(
            kernel_regularizer=regularizer, dtype="float32", name=f"attention_{size}"
        )(attended)
        branch = ClassEvidence(
            num_classes,
            aggregation=aggregation,
            weighted=evidence == "weighted",
            kernel_regularizer=regularizer,
            dtype="float32",
            name=f"evidence_{size}",
        )([features, attention])
        outputs[f"logits_{size}"] = branch["logits"]
        outputs[f"evidence_{size}"] = branch["evidence"]
        outputs[f"attention_{size}"] = attention
        if auxiliary:
            pooled = layers.GlobalAveragePooling2D(name=f"auxiliary_pool_{size}")(
                attended
            )
            outputs[f"auxiliary_{size}"] = layers.Dense(
                num_classes,
                kernel_regularizer=regularizer,
                dtype="float32",
                name=f"auxiliary_{size}",
            )(pooled)
    decided = BranchDecision(dtype="float32", name="logits")(
        [outputs[f"logits_{size}"] for size in sorted(branches)]
    )
    (source,) = keras.utils.get_source_inputs(inputs)
    return keras.Model(source, {"logits": decided, **outputs}, name=name)


def without_auxiliary(model):
    """The model without the outputs that only its training needs, weights shared."""
    kept = {
        name: tensor
        for name, tensor in model.output.items()
        if not name.startswith("auxiliary")
    }
    if len(kept) == len(model.output):
        return model
    return keras.Model(model.input, kept, name=model.name)


def _check(branches, squeeze_base, evidence):
    if not branches or any(size not in BRANCHES for size in branches):
        raise ValueError(
            f"Expected `branches` among {tuple(BRANCHES)}, at least one. "
            f"Received: branches={branches}"
        )
    if squeeze_base not in SQUEEZE_BASES:
        raise ValueError(
            f"Expected `squeeze_base` to be one of {SQUEEZE_BASES}. "
            f"Received: squeeze_base={squeeze_base!r}"
        )
    if evidence not in ("weighted", "raw"):
        raise ValueError(
            "Expected `evidence` to be 'weighted' or 'raw'. "
            f"Received: evidence={evidence!r}"
        )


def _check_size(inputs, largest):
    _, height, width, channels = inputs.shape
    if channels != 3:
        raise ValueError(
            "Expected images with 3 channels (convert grey and RGBA images first). "
            f"Received: {channels}"
        )
    if any(size is not None and size < largest for size in (height, width)):
        raise ValueError(
            f"Expected images of at least {largest} x {largest} pixels, the largest "
            f"receptive field. Received: {height} x {width}. Leave the larger of "
            "`branches` out, or enlarge the images."
        )
