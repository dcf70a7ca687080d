"""Functional models with named outputs."""

from keras_attn.models.anchornet import anchornet
from keras_attn.models.anchornet95 import anchornet95
from keras_attn.models.cifar_resnet import cifar_resnet, resnet20, rn26, rn38
from keras_attn.models.densenet import dn100
from keras_attn.models.downstream import (
    DOWNSTREAM_NETWORKS,
    build_downstream,
    downstream_normalization,
)
from keras_attn.models.hcgnet import hcgnet_b, hcgnet_c
from keras_attn.models.localizer import as_localizer, branches_of
from keras_attn.models.localizing import with_patches
from keras_attn.models.registry import BACKBONES, build_model
from keras_attn.models.resnext import resnext50
from keras_attn.models.small_resnet import small_resnet
from keras_attn.models.wide_resnet import wrn16

__all__ = [
    "BACKBONES",
    "DOWNSTREAM_NETWORKS",
    "anchornet",
    "anchornet95",
    "as_localizer",
    "branches_of",
    "build_downstream",
    "build_model",
    "cifar_resnet",
    "dn100",
    "downstream_normalization",
    "hcgnet_b",
    "hcgnet_c",
    "resnet20",
    "resnext50",
    "rn26",
    "rn38",
    "small_resnet",
    "with_patches",
    "wrn16",
]
