"""The published weights of AnchorNet-95."""

from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

from keras_attn.convert.assign import (
    CONVOLUTION,
    DEPTHWISE,
    LINEAR,
    VECTOR,
    Target,
    batch_normalization_targets,
    check_weights,
)
from keras_attn.convert.checkpoint import CheckpointError
from keras_attn.convert.state_dict import read_state_dict, strip_prefix
from keras_attn.models.anchornet95 import BLOCKS, FEATURES, anchornet95
from keras_attn.preprocessing import IMAGENET_MEAN, IMAGENET_STD, ImageSpec

# The images that the authors evaluate on.
ANCHORNET95_IMAGES = ImageSpec(
    height=224,
    width=224,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    interpolation="bilinear",
    crop_fraction=0.875,
)

# The authors' first block owns an expansion that its forward pass leaves out.
NEVER_USED = (
    "bneck.0.conv1.weight",
    "bneck.0.bn1.weight",
    "bneck.0.bn1.bias",
    "bneck.0.bn1.running_mean",
    "bneck.0.bn1.running_var",
    "bneck.0.bn1.num_batches_tracked",
)


def load_anchornet95(
    path: str | Path, key: str | None = None, **options
) -> keras.Model:
    """AnchorNet-95 with the weights of a published checkpoint.

    Args:
        path: The authors' `.pth` or `.pth.tar`, or the same tensors as
            `.safetensors`; see `read_state_dict`.
        key: See `read_state_dict`.
        **options: Arguments of `anchornet95`, such as `input_shape`, `folded` or
            `input_tensor`. The number of classes is the checkpoint's.

    Returns:
        The model. It takes normalised images; on raw pixels it stands behind
        `ImagePreprocessing(ANCHORNET95_IMAGES)`, as below.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file cannot be read or its tensors do not fit. It is
            a `ValueError`.

    Example:

    >>> pixels = keras.Input((None, None, 3))
    >>> images = keras_attn.ImagePreprocessing(ANCHORNET95_IMAGES)(pixels)
    >>> model = load_anchornet95("anchornet.pth", input_tensor=images)
    """
    state_dict = strip_prefix(read_state_dict(path, key))
    bias = state_dict.get("fc.bias", np.zeros(1000))
    model = anchornet95(num_classes=max(1, bias.size), **options)
    try:
        return convert_anchornet95(state_dict, model)
    except CheckpointError as error:
        raise CheckpointError(f"{error}. In: {path}") from error


def convert_anchornet95(
    state_dict: Mapping[str, np.ndarray], model: keras.Model
) -> keras.Model:
    """Gives a model of `anchornet95` the weights of the authors' network.

    Every tensor is used but the counters `num_batches_tracked` and the never used
    expansion of the first block, `NEVER_USED`. A model that is `folded` gets the
    product of the authors' last two layers.

    Args:
        state_dict: Dict from the authors' names to arrays, with or without the
            never used ones.
        model: Model of `anchornet95` with as many classes.

    Returns:
        `model`, which is changed only if everything fits.

    Raises:
        CheckpointError: If tensors are missing, left over or of another shape; it
            lists them all.

    Example:

    >>> state_dict = strip_prefix(read_state_dict("anchornet.pth"))
    >>> model = convert_anchornet95(state_dict, anchornet95())
    """
    names = {layer.name for layer in model.layers}
    if not {"stem", f"block_{len(BLOCKS)}", "evidence_95"} <= names:
        raise ValueError(
            f"Expected a model of anchornet95(). Received: model {model.name!r}"
        )
    targets = _targets(model)
    shapes = {name: target.tensor_shape for name, target in targets.items()}
    classifier = model.get_layer("evidence_95").classifier
    last_layers = _last_layers(model, classifier)
    if last_layers is None:
        width, num_classes = classifier.kernel.shape
        shapes["exp_conv.weight"] = (FEATURES, width, 1, 1)
        shapes["exp_conv.bias"] = (FEATURES,)
        shapes["fc.weight"] = (num_classes, FEATURES)
        shapes["fc.bias"] = (num_classes,)
    else:
        targets |= last_layers
        shapes |= {name: target.tensor_shape for name, target in last_layers.items()}
    check_weights(state_dict, shapes, _unused(shapes), "AnchorNet-95")
    for name, target in targets.items():
        target.assign(state_dict[name])
    if last_layers is None:
        kernel, bias = _folded(state_dict)
        classifier.kernel.assign(kernel)
        classifier.bias.assign(bias)
    return model


def _targets(model):
    """The authors' names of all layers but the last two."""
    stem = model.get_layer("stem")
    targets = {
        "conv1.weight": Target(stem.kernel, CONVOLUTION),
        **batch_normalization_targets("bn1", model.get_layer("stem_normalization")),
    }
    for index in range(len(BLOCKS)):
        block = model.get_layer(f"block_{index + 1}")
        targets |= {
            f"bneck.{index}.{name}": target
            for name, target in _block_targets(block).items()
        }
    return targets


def _block_targets(block):
    squeeze = block.squeeze_excitation.squeeze
    excite = block.squeeze_excitation.excite
    targets = {
        "conv2.weight": Target(block.depthwise.kernel, DEPTHWISE),
        **batch_normalization_targets("bn2", block.depthwise_normalization),
        "se.se1.weight": Target(squeeze.kernel, CONVOLUTION),
        "se.se1.bias": Target(squeeze.bias, VECTOR),
        "se.se2.weight": Target(excite.kernel, CONVOLUTION),
        "se.se2.bias": Target(excite.bias, VECTOR),
        "conv3.weight": Target(block.project.kernel, CONVOLUTION),
        **batch_normalization_targets("bn3", block.project_normalization),
    }
    if block.expand is not None:
        targets["conv1.weight"] = Target(block.expand.kernel, CONVOLUTION)
        targets |= batch_normalization_targets("bn1", block.expand_normalization)
    return targets


def _last_layers(model, classifier):
    """Targets of the last two layers, `None` where the model has them folded."""
    if "features" not in {layer.name for layer in model.layers}:
        return None
    features = model.get_layer("features")
    return {
        "exp_conv.weight": Target(features.kernel, CONVOLUTION),
        "exp_conv.bias": Target(features.bias, VECTOR),
        "fc.weight": Target(classifier.kernel, LINEAR),
        "fc.bias": Target(classifier.bias, VECTOR),
    }


def _folded(state_dict):
    """Kernel and bias of the one linear map that the last two layers make."""
    expand = state_dict["exp_conv.weight"][:, :, 0, 0].astype("float64")
    classify = state_dict["fc.weight"].astype("float64")
    bias = classify @ state_dict["exp_conv.bias"] + state_dict["fc.bias"]
    return (classify @ expand).T, bias


def _unused(shapes):
    """Names that may be there and have no use."""
    suffix = ".running_mean"
    counters = [
        name.removesuffix(suffix) + ".num_batches_tracked"
        for name in shapes
        if name.endswith(suffix)
    ]
    return (*NEVER_USED, *counters)
