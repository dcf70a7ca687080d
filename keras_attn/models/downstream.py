"""Networks that classify full images or patches, by name."""

import dataclasses
import difflib
import os

import keras

from keras_attn.models import building
from keras_attn.models.hcgnet import hcgnet_c
from keras_attn.models.published import (
    load_weights,
    penalize_kernels,
    published_network,
    reverse_channels,
)
from keras_attn.models.resnext import resnext50
from keras_attn.models.small_resnet import small_resnet
from keras_attn.preprocessing import IMAGENET_MEAN, IMAGENET_STD

# ResNet-50 of keras.applications was trained on pixels less this mean, in RGB order.
RESNET50_MEAN = (123.68 / 255, 116.779 / 255, 103.939 / 255)
RESNET50_STD = (1 / 255, 1 / 255, 1 / 255)


@dataclasses.dataclass(frozen=True)
class Application:
    """A network of `keras.applications`, with weights learned on ImageNet.

    Args:
        builder: Function of `keras.applications`.
        file: The weights file without the classifier, as it is published.
        mean, std: Normalisation of its images, on the scale 0..1, in RGB order.
        stem: Name of the first convolution.
        blue_first: Whether the published weights take channels in BGR order.
    """

    builder: object
    file: str
    mean: tuple = IMAGENET_MEAN
    std: tuple = IMAGENET_STD
    stem: str = "conv1_conv"
    blue_first: bool = False


APPLICATIONS = {
    "resnet50": Application(
        keras.applications.ResNet50,
        "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        mean=RESNET50_MEAN,
        std=RESNET50_STD,
        blue_first=True,
    ),
    "densenet169": Application(
        keras.applications.DenseNet169,
        "densenet169_weights_tf_dim_ordering_tf_kernels_notop.h5",
    ),
}
BUILDERS = {
    "resnext50": resnext50,
    "hcgnet_c": hcgnet_c,
    "small_resnet": small_resnet,
}
DOWNSTREAM_NETWORKS = (*APPLICATIONS, *BUILDERS)


def build_downstream(
    name,
    num_classes,
    input_shape=(None, None, 3),
    input_tensor=None,
    weights=None,
    weight_decay=0.0,
) -> keras.Model:
    """A network that classifies images or patches of any size.

    `"resnet50"` and `"densenet169"` are those of `keras.applications`, `"resnext50"`
    (32x4d) and `"hcgnet_c"` are built here, all four being downstream networks of the
    AnchorNet paper (table 3); `"small_resnet"` can be trained from scratch on a CPU.
    All end in a global average and a dense layer `logits`.

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
    _check(name, weights)
    if name in BUILDERS:
        model = BUILDERS[name](
            input_shape=input_shape,
            num_classes=num_classes,
            weight_decay=weight_decay,
            input_tensor=input_tensor,
        )
    else:
        inputs = building.image_input(input_shape, input_tensor)
        features = _features(name, inputs, weights, weight_decay)
        model = building.classifier(
            inputs, features, None, num_classes, name, weight_decay
        )
    if weights is not None and _is_own(weights):
        load_weights(model, weights, f"{name!r} with {num_classes} classes")
    return model


def downstream_normalization(name):
    """Mean and std, on the scale 0..1, that `build_downstream` expects.

    Returns:
        `{"mean": ..., "std": ...}`, arguments of `ImageSpec`: what the published
        weights were learned with, and the usual one of ImageNet for networks without.

    Example:

    >>> downstream_normalization("densenet169")["mean"]
    (0.485, 0.456, 0.406)
    """
    _check(name, None)
    if name in APPLICATIONS:
        application = APPLICATIONS[name]
        return {"mean": application.mean, "std": application.std}
    return {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}


def _check(name, weights):
    if name not in DOWNSTREAM_NETWORKS:
        nearest = difflib.get_close_matches(str(name), DOWNSTREAM_NETWORKS, 1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(
            f"Expected `name` to be one of {DOWNSTREAM_NETWORKS}. "
            f"Received: name={name!r}.{hint}"
        )
    if weights is None or (weights == "imagenet" and name in APPLICATIONS):
        return
    if weights == "imagenet":
        raise ValueError(
            f"Expected `weights` of {name!r} to be None or the path of a local file, "
            f"since only {tuple(APPLICATIONS)} have published weights. "
            "Received: weights='imagenet'"
        )
    if not os.path.isfile(weights):
        raise FileNotFoundError(
            "Expected `weights` to be None, 'imagenet' or the path of a local file. "
            f"Received: weights={str(weights)!r}, which is not there"
        )
    if name in BUILDERS and not _is_own(weights):
        raise ValueError(
            f"Expected `weights` of {name!r} to be a .weights.h5 file, written by "
            f"`save_weights`. Received: weights={str(weights)!r}"
        )


def _is_own(weights):
    return str(weights).endswith(".weights.h5")


def _features(name, inputs, weights, weight_decay):
    """Last features of a network of `keras.applications` on the inputs."""
    application = APPLICATIONS[name]
    published = weights is not None and not _is_own(weights)
    network = published_network(
        name,
        application.builder,
        application.file,
        weights if published else None,
        input_tensor=inputs,
        name=name,
    )
    if published and application.blue_first:
        reverse_channels(network.get_layer(application.stem))
    penalize_kernels(network.layers, weight_decay)
    return network.output
