"""Networks by name: one table for all of them."""

import dataclasses
import fnmatch
import functools
from collections.abc import Callable
from typing import Any

import keras

from keras_attn._checks import did_you_mean, one_of
from keras_attn.models.anchornet import anchornet
from keras_attn.models.anchornet95 import anchornet95
from keras_attn.models.cifar_resnet import resnet20, rn26, rn38
from keras_attn.models.densenet import dn100
from keras_attn.models.hcgnet import hcgnet_b, hcgnet_c
from keras_attn.models.masked_resnet import BOTTLENECK_DEPTHS, masked_resnet
from keras_attn.models.resnext import resnext50
from keras_attn.models.small_resnet import small_resnet
from keras_attn.models.vit import VIT_SIZES, vit
from keras_attn.models.wide_resnet import wrn16
from keras_attn.preprocessing import IMAGENET_MEAN, IMAGENET_STD

# Networks of keras.applications that were trained on BGR pixels less this mean, here
# in RGB order.
CAFFE_MEAN = (123.68 / 255, 116.779 / 255, 103.939 / 255)
CAFFE_STD = (1 / 255, 1 / 255, 1 / 255)

# What builds or takes a network of each role.
ROLES = {
    "classifier": "`build_downstream`: images or patches of any size to logits",
    "class_embedding": "`build_model`: with a `row` of the class-embedding paper",
    "features": "`feature_backbone`: up to the last map",
    "tokens": "`vit`: class token and tokens of patches",
    "localizer": "`patch_classifier`: class evidence of known receptive fields",
    "masked": "`masked_resnet`: an image and its attention map to logits",
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A network that can be built by name.

    Args:
        builder: Function that returns the network: with logits where it is defined in
            this package, without them where it is one of `keras.applications`.
        weights: Name of the published weights file, without the classifier; empty
            where there is none. Entries with such a file are of `keras.applications`.
        mean, std: Normalisation of its images, on the scale 0..1, in RGB order.
        roles: Names of `ROLES`.
        features: Name of the layer that gives the last map.
        options: Arguments of the builder where only the features are wanted.
        blue_first: Name of the first convolution, if its published weights take
            channels in BGR order; else empty.
        unstrided: Names of convolutions that lose their stride.
    """

    builder: Callable[..., keras.Model]
    weights: str = ""
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    roles: frozenset[str] = frozenset({"classifier"})
    features: str = ""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    blue_first: str = ""
    unstrided: tuple[str, ...] = ()


RESNET50 = Entry(
    keras.applications.ResNet50,
    "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
    CAFFE_MEAN,
    CAFFE_STD,
    roles=frozenset({"classifier", "features"}),
    features="conv5_block3_out",
    blue_first="conv1_conv",
)
BASIC_DEPTHS = (8, 14, 20, 32, 44, 56, 110)
WITH_ROW = frozenset({"classifier", "class_embedding"})


def _masked(depth, block):
    builder = functools.partial(masked_resnet, depth, block=block)
    return Entry(builder, roles=frozenset({"masked"}))


NETWORKS = {
    "resnet50": RESNET50,
    # With maps twice as large, as iSQRT-COV takes them: 28 x 28 at 448.
    "resnet50_stride16": dataclasses.replace(
        RESNET50,
        roles=frozenset({"features"}),
        unstrided=("conv5_block1_0_conv", "conv5_block1_1_conv"),
    ),
    # The paper's conv5_4 before its pooling: 28 x 28 at 448.
    "vgg19": Entry(
        keras.applications.VGG19,
        "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
        CAFFE_MEAN,
        CAFFE_STD,
        roles=frozenset({"features"}),
        features="block5_conv4",
        blue_first="block1_conv1",
    ),
    "densenet169": Entry(
        keras.applications.DenseNet169,
        "densenet169_weights_tf_dim_ordering_tf_kernels_notop.h5",
    ),
    "resnext50": Entry(resnext50),
    "hcgnet_b": Entry(hcgnet_b),
    "hcgnet_c": Entry(hcgnet_c),
    # To be trained from scratch on a CPU; its last map has 12 x 12 cells at 96.
    "small_resnet": Entry(
        small_resnet,
        roles=frozenset({"classifier", "features"}),
        features="final_relu",
        options={"base_width": 24, "strides": (1, 2, 1)},
    ),
    "rn26": Entry(rn26, roles=WITH_ROW),
    "rn38": Entry(rn38, roles=WITH_ROW),
    "wrn16": Entry(wrn16, roles=WITH_ROW),
    "dn100": Entry(dn100, roles=WITH_ROW),
    "resnet20": Entry(resnet20, roles=WITH_ROW),
    "anchornet": Entry(anchornet, roles=frozenset({"localizer"})),
    "anchornet95": Entry(anchornet95, roles=frozenset({"localizer"})),
    **{
        f"vit_{size}": Entry(functools.partial(vit, size), roles=frozenset({"tokens"}))
        for size in VIT_SIZES
    },
    **{f"masked_resnet{depth}": _masked(depth, "basic") for depth in BASIC_DEPTHS},
    **{
        # ResNet-14 and -26 exist with both kinds of block.
        f"masked_{'bottleneck' if depth < 50 else 'resnet'}{depth}": _masked(
            depth, "bottleneck"
        )
        for depth in BOTTLENECK_DEPTHS
    },
}


def list_models(pattern: str = "*", role: str | None = None) -> list[str]:
    """The names of networks that can be built by name.

    Args:
        pattern: Shell pattern of the names, such as `"*resnet*"`.
        role: One of `"classifier"`, `"class_embedding"`, `"features"`, `"tokens"`,
            `"localizer"` and `"masked"`, or `None` for all.

    Returns:
        List of names, in the order of the table.

    Raises:
        ValueError: If there is no such role.

    Example:

    >>> list_models("*resnet*", role="features")
    ['resnet50', 'resnet50_stride16', 'small_resnet']
    """
    one_of("role", role, (None, *ROLES))
    return [
        name
        for name, entry in NETWORKS.items()
        if fnmatch.fnmatchcase(name, pattern) and (role is None or role in entry.roles)
    ]


def network(name: str, role: str, argument: str = "name") -> Entry:
    """The entry of a network that has a role.

    Args:
        name: Name of the network.
        role: One of `ROLES`.
        argument: What the caller calls the name, for the message.

    Raises:
        ValueError: If no network of that role has the name.
    """
    names = list_models(role=role)
    if name not in names:
        raise ValueError(
            f"Expected `{argument}` to be one of {tuple(names)}. "
            f"Received: {argument}={name!r}{did_you_mean(name, names)}"
        )
    return NETWORKS[name]


def normalization(name: str, role: str) -> dict[str, tuple[float, ...]]:
    """Mean and std that a network expects, as arguments of `ImageSpec`."""
    entry = network(name, role)
    return {"mean": entry.mean, "std": entry.std}


BACKBONES = {
    name: NETWORKS[name].builder for name in list_models(role="class_embedding")
}


def build_model(backbone: str, **options) -> keras.Model:
    """A network of the class-embedding paper, by name.

    Args:
        backbone: One of `BACKBONES`.
        **options: The builder's arguments, such as `row`, `input_shape`,
            `num_classes`, `weight_decay`, `input_tensor`.

    Raises:
        ValueError: If there is no backbone of that name.

    Example:

    >>> model = build_model("rn26", row="class_embedding", num_classes=10)
    >>> sorted(model.output)
    ['logits', 'patch_logits']
    """
    return network(backbone, "class_embedding", "backbone").builder(**options)
