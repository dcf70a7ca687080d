"""AnchorNet: three localisation branches with known receptive fields."""

import functools
from typing import Literal, NamedTuple

import keras
from keras import layers

from keras_attn._checks import one_of
from keras_attn.layers.branch_decision import BranchDecision
from keras_attn.layers.class_evidence import ClassEvidence
from keras_attn.layers.spatial_attention_branch import SpatialAttentionBranch
from keras_attn.layers.valid_bottleneck import ValidBottleneck
from keras_attn.models import building

WIDTH = 96


class Block(NamedTuple):
    """A row of the paper's tables; by default of the branches."""

    kernel: int
    expansion: int
    filters: int = WIDTH
    squeezes: bool = True
    activation: str = "hard_silu"
    stride: int = 1


# Table 1.
HEAD = (
    Block(3, 16, 16, squeezes=False, activation="relu", stride=2),
    Block(3, 72, 24, squeezes=False, activation="relu", stride=2),
    Block(1, 88, 24, squeezes=False, activation="relu"),
    Block(1, 96, 40),
    Block(1, 240, 40),
    Block(1, 240, 40),
    Block(1, 120, 48),
    Block(3, 144, 48),
    Block(3, 288, 96),
)
# Table 2, by patch size.
BRANCHES = {
    63: (Block(3, 480), Block(1, 576)),
    95: (Block(3, 480), Block(5, 576)),
    111: (Block(5, 480), Block(5, 576)),
}
ATTENTION = Block(1, 192)

SQUEEZE_BASES = ("input", "expansion")
EVIDENCE = ("weighted", "raw")


def anchornet(
    input_shape: tuple = (224, 224, 3),
    num_classes: int = 1000,
    branches: tuple[int, ...] = (63, 95, 111),
    squeeze_ratio: float | None = 0.25,
    squeeze_base: Literal["input", "expansion"] = "input",
    shortcut: str = "top_left",
    aggregation: Literal["sum", "mean"] = "sum",
    evidence: Literal["weighted", "raw"] = "weighted",
    auxiliary: bool = False,
    weight_decay: float = 0.0,
    input_tensor=None,
    name: str = "anchornet",
) -> keras.Model:
    """AnchorNet, a light-weight localiser and classifier.

    AnchorNet paper, section 3.2, tables 1 and 2. No convolution is padded, so that
    cell `(i, j)` of branch 63 sees the rows `8 i` to `8 i + 62` and the columns `8 j`
    to `8 j + 62` of the image and, but for squeeze-excitation and attention, which
    scale all cells equally, nothing else. The same holds of 95 and 111.

    Args:
        input_shape: `(height, width, 3)`, at least as large as the largest branch's
            patches; height and width may be `None`.
        num_classes: Number of classes.
        branches: Patch sizes among 63, 95 and 111, at least one.
        squeeze_ratio: Hidden width of the squeeze-excitation relative to
            `squeeze_base`; `None`: without squeeze-excitation.
        squeeze_base: `"input"`, the bottleneck's input as in the authors' later code,
            or `"expansion"` as in MobileNetV3.
        shortcut: Crop of the shortcut, see `ValidBottleneck`.
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
        `(batch, rows, columns, 1)` and, with `auxiliary=True`, `auxiliary_63`
        `(batch, classes)`. All are float32. Of an image of 224 x 224 the maps have 21,
        17 and 15 rows.

    Raises:
        ValueError: If an argument is not as above, or the image is too small.

    Example:

    >>> model = anchornet((128, 160, 3), num_classes=10)
    >>> model.output["evidence_111"].shape
    (None, 3, 7, 10)
    """
    _check(branches, squeeze_base, evidence)
    inputs = building.image_input(input_shape, input_tensor)
    building.check_images(
        inputs,
        max(branches),
        ". Leave the larger of `branches` out, or enlarge the images.",
    )
    regularizer = building.l2(weight_decay)
    bottleneck = functools.partial(
        _bottleneck,
        squeeze_ratio=squeeze_ratio,
        squeeze_base=squeeze_base,
        shortcut=shortcut,
        kernel_regularizer=regularizer,
    )
    x = building.unpadded_stem(inputs, HEAD[0].filters, "hard_silu", weight_decay)
    for number, block in enumerate(HEAD, 1):
        x = bottleneck(x, block, name=f"head_{number}")
    outputs = {}
    for size in sorted(branches):
        features = x
        for number, block in enumerate(BRANCHES[size], 1):
            features = bottleneck(features, block, name=f"branch_{size}_{number}")
        attended = bottleneck(features, ATTENTION, name=f"attention_features_{size}")
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
            outputs[f"auxiliary_{size}"] = _auxiliary(
                attended, num_classes, size, regularizer
            )
    decided = BranchDecision(dtype="float32", name="logits")(
        [outputs[f"logits_{size}"] for size in sorted(branches)]
    )
    (source,) = keras.utils.get_source_inputs(inputs)
    return keras.Model(source, {"logits": decided, **outputs}, name=name)


def _bottleneck(x, block, *, squeeze_ratio, squeeze_base, **options):
    base = x.shape[-1] if squeeze_base == "input" else block.expansion
    squeezes = block.squeezes and squeeze_ratio is not None
    return ValidBottleneck(
        block.filters,
        block.expansion,
        kernel_size=block.kernel,
        strides=block.stride,
        squeeze_units=max(1, int(base * squeeze_ratio)) if squeezes else None,
        activation=block.activation,
        **options,
    )(x)


def _auxiliary(attended, num_classes, size, regularizer):
    """Logits that only the training of the attention branch needs."""
    pooled = layers.GlobalAveragePooling2D(name=f"auxiliary_pool_{size}")(attended)
    return layers.Dense(
        num_classes,
        kernel_regularizer=regularizer,
        dtype="float32",
        name=f"auxiliary_{size}",
    )(pooled)


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
    one_of("squeeze_base", squeeze_base, SQUEEZE_BASES)
    one_of("evidence", evidence, EVIDENCE)
