"""Networks that classify full images or patches, by name."""

from pathlib import Path

import keras

from keras_attn.models import building
from keras_attn.models.catalogue import list_models, network, normalization
from keras_attn.models.published import (
    check_weights,
    load_weights,
    penalize_kernels,
    published_network,
)

DOWNSTREAM_NETWORKS = tuple(list_models(role="classifier"))
OWN_WEIGHTS = ".weights.h5"


def build_downstream(
    name: str,
    num_classes: int,
    input_shape: tuple = (None, None, 3),
    input_tensor=None,
    weights: str | Path | None = None,
    weight_decay: float = 0.0,
) -> keras.Model:
    """A network that classifies images or patches of any size.

    `"resnet50"` and `"densenet169"` are those of `keras.applications`, `"resnext50"`
    (32x4d) and `"hcgnet_c"` are built here, all four being downstream networks of the
    AnchorNet paper (table 3); `"small_resnet"` can be trained from scratch on a CPU.
    Other names are those of `list_models(role="classifier")`. All end in a global
    average and a dense layer `logits`.

    The network takes normalised images, in RGB order. Published weights want the
    normalisation of `downstream_normalization`, as an `ImagePreprocessing` with that
    mean and std before it gives it:

        spec = ImageSpec(height, width, **downstream_normalization("resnet50"))
        images = keras.Input((None, None, 3))
        model = build_downstream(
            "resnet50",
            num_classes=5,
            input_tensor=ImagePreprocessing(spec)(images),
            weights="imagenet",
        )

    The ResNet-50 of `keras.applications` has its strides in the 1x1 convolutions: 3.86
    G multiply-adds at 224 x 224. The paper's count of 4.1 G is the variant with the
    strides in the 3x3 convolutions, `resnext(groups=1, group_width=64)`.

    Args:
        name: One of `DOWNSTREAM_NETWORKS`.
        num_classes: Number of classes.
        input_shape: `(height, width, 3)`; height and width may be `None`.
        input_tensor: Tensor of normalised images to build on instead of a new input.
        weights: `None`; `"imagenet"`, which downloads the published weights of all
            but the classifier (networks of `keras.applications`); or the path of a
            local file: that same published file, or a `.weights.h5` of this very
            model, written by `save_weights`.
        weight_decay: Coefficient of the L2 penalty on kernels.

    Returns:
        Functional model with the output `logits` `(batch, num_classes)`, float32.

    Raises:
        ValueError: If the name is unknown or the weights do not fit.
        FileNotFoundError: If the weights are not there or the download fails.

    Example:

    >>> model = build_downstream("small_resnet", num_classes=5)
    >>> model(np.zeros((2, 63, 95, 3)))["logits"].shape
    (2, 5)
    """
    entry = network(name, "classifier")
    check_weights(name, "classifier", weights, OWN_WEIGHTS)
    own = weights is not None and str(weights).endswith(OWN_WEIGHTS)
    if entry.weights:
        inputs = building.image_input(input_shape, input_tensor)
        backbone = published_network(
            name,
            "classifier",
            None if own else weights,
            input_tensor=inputs,
            name=name,
        )
        penalize_kernels(backbone.layers, weight_decay)
        model = building.classifier(
            inputs, backbone.output, None, num_classes, name, weight_decay
        )
    else:
        model = entry.builder(
            input_shape=input_shape,
            num_classes=num_classes,
            weight_decay=weight_decay,
            input_tensor=input_tensor,
        )
    if own:
        load_weights(model, weights, f"{name!r} with {num_classes} classes")
    return model


def downstream_normalization(name: str) -> dict[str, tuple[float, ...]]:
    """Mean and std, on the scale 0..1, that `build_downstream` expects.

    Returns:
        `{"mean": ..., "std": ...}`, arguments of `ImageSpec`: those that the published
        weights were learned with, and the usual ones of ImageNet for networks without.

    Example:

    >>> downstream_normalization("densenet169")["mean"]
    (0.485, 0.456, 0.406)
    """
    return normalization(name, "classifier")
