"""Functional models with named outputs."""

from keras_attn.models.anchornet import anchornet
from keras_attn.models.cifar_resnet import cifar_resnet, resnet20, rn26, rn38
from keras_attn.models.densenet import dn100
from keras_attn.models.registry import BACKBONES, build_model
from keras_attn.models.wide_resnet import wrn16

__all__ = [
    "BACKBONES",
    "anchornet",
    "build_model",
    "cifar_resnet",
    "dn100",
    "resnet20",
    "rn26",
    "rn38",
    "wrn16",
]
