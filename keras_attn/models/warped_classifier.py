"""Fine-grained recognition: a backbone, a warp of its last map, a pooling."""

from pathlib import Path
from typing import Any

import keras
from keras import layers

from keras_attn._checks import one_of
from keras_attn.layers.attention_sampler import AttentionSampler
from keras_attn.layers.deformable_conv2d import DeformableConv2D
from keras_attn.layers.saliency_sampler import SaliencySampler
from keras_attn.layers.spatial_transformer import SpatialTransformer
from keras_attn.layers.volumetric_transformer import VolumetricTransformer
from keras_attn.models import building
from keras_attn.models.descriptors import pool
from keras_attn.models.feature_backbones import feature_backbone

# Layers that warp the last map and return `features` and `fields`.
WARPS = {
    "spatial_transformer": SpatialTransformer,
    "saliency_sampler": SaliencySampler,
    "attention_sampler": AttentionSampler,
    "volumetric_transformer": VolumetricTransformer,
}
# It takes the place of the last 3x3 convolution instead.
DEFORMABLE_CONVOLUTION = "deformable_convolution"
DEFORMATIONS = ("none", *WARPS, DEFORMABLE_CONVOLUTION)


def warped_classifier(
    backbone: str = "resnet50",
    deformation: str = "volumetric_transformer",
    pooling: str = "average",
    num_classes: int = 1000,
    input_shape: tuple = (448, 448, 3),
    input_tensor=None,
    weights: str | Path | None = None,
    options: dict[str, Any] | None = None,
    reduced_channels: int | None = 256,
    weight_decay: float = 0.0,
    warped_output: bool = False,
    name: str = "warped_classifier",
) -> keras.Model:
    """Classifier whose last feature map is warped before it is pooled.

    Volumetric Transformer Networks, sections 3.5 and 4.2: the warp follows the last
    convolution, every comparator stands at the same place, and any pooling may follow.
    Second-order poolings follow a 1x1 convolution to `reduced_channels`.

    Args:
        backbone: One of `FEATURE_BACKBONES`.
        deformation: One of `DEFORMATIONS`.
        pooling: `"average"` or a name of `keras_attn.models.descriptors.POOLINGS`.
        num_classes: Number of classes.
        input_shape: `(height, width, 3)`; known sizes.
        input_tensor: Tensor of normalised images to build on instead of a new input.
        weights: Weights of the backbone, see `feature_backbone`.
        options: Dict of further arguments of the deformation's layer.
        reduced_channels: Width of the map that a second-order pooling takes.
        weight_decay: Coefficient of the L2 penalty on kernels.
        warped_output: Whether to return the warped map, which the consistency loss
            takes.
        name: Name of the model.

    Returns:
        Functional model with the outputs `logits` `(batch, num_classes)`; `embedding`,
        the pooled map with unit length, for retrieval; `fields` `(batch, rows, columns,
        groups, 2)` where the deformation has them; and, with `warped_output`, `warped`.
        All are float32 but `warped`. The layer `features` gives the map before the
        warp, `warped` that after it.

    Raises:
        ValueError: For an unknown name, or arguments that the layers refuse.

    Example:

    >>> model = warped_classifier(
    ...     "small_resnet",
    ...     num_classes=5,
    ...     input_shape=(96, 96, 3),
    ...     options={"groups": 8, "window": 5},
    ... )
    >>> model.output["fields"].shape
    (None, 12, 12, 8, 2)
    """
    one_of("deformation", deformation, DEFORMATIONS)
    options = {**(options or {})}
    inputs = building.image_input(input_shape, input_tensor)
    deformable = deformation == DEFORMABLE_CONVOLUTION
    features = feature_backbone(
        backbone,
        inputs,
        weights=weights,
        weight_decay=weight_decay,
        last_convolution=DeformableConv2D if deformable else None,
        convolution_options=options if deformable else None,
    )
    features = layers.Identity(name="features")(features)
    warped, outputs = features, {}
    if deformation in WARPS:
        result = _warp(deformation, options, weight_decay)(features)
        warped = result["features"]
        outputs["fields"] = layers.Identity(dtype="float32", name="fields")(
            result["fields"]
        )
    warped = layers.Identity(name="warped")(warped)
    if warped_output:
        outputs["warped"] = warped
    pooled = pool(warped, pooling, reduced_channels, weight_decay)
    outputs["embedding"] = layers.UnitNormalization(dtype="float32", name="embedding")(
        pooled
    )
    logits = layers.Dense(
        num_classes,
        kernel_regularizer=building.l2(weight_decay),
        dtype="float32",
        name="logits",
    )(pooled)
    (source,) = keras.utils.get_source_inputs(inputs)
    return keras.Model(source, {"logits": logits, **outputs}, name=name)


def _warp(deformation, options, weight_decay):
    regularizer = building.l2(weight_decay)
    if deformation == "volumetric_transformer" and regularizer:
        options = {"kernel_regularizer": regularizer, **options}
    return WARPS[deformation](name="deformation", **options)
