"""Functional models with named outputs."""

from keras_attn.models.anchornet import anchornet
from keras_attn.models.anchornet95 import anchornet95
from keras_attn.models.catalogue import BACKBONES, build_model, list_models
from keras_attn.models.cifar_resnet import cifar_resnet, resnet20, rn26, rn38
from keras_attn.models.densenet import dn100
from keras_attn.models.descriptors import POOLINGS
from keras_attn.models.dino import Dino
from keras_attn.models.dino_optimizer import (
    DinoAdamW,
    EpochwiseWarmup,
    WarmupCosine,
    dino_optimizer,
)
from keras_attn.models.downstream import (
    DOWNSTREAM_NETWORKS,
    build_downstream,
    downstream_normalization,
)
from keras_attn.models.early_exit import early_exit_classifier, exit_table, with_exits
from keras_attn.models.feature_backbones import (
    FEATURE_BACKBONES,
    backbone_normalization,
    feature_backbone,
)
from keras_attn.models.folded import folded
from keras_attn.models.hcgnet import hcgnet, hcgnet_b, hcgnet_c
from keras_attn.models.localizer import as_localizer, branches_of, with_patches
from keras_attn.models.masked_resnet import end_to_end, masked_resnet
from keras_attn.models.patch_classifier import cost_of, patch_classifier
from keras_attn.models.preset import from_preset, list_presets
from keras_attn.models.prompt_cam import prompt_cam
from keras_attn.models.resnext import resnext, resnext50
from keras_attn.models.small_resnet import small_resnet
from keras_attn.models.vit import (
    VIT_SIZES,
    attention_map,
    attention_map_model,
    attention_of,
    vit,
)
from keras_attn.models.warped_classifier import DEFORMATIONS, warped_classifier
from keras_attn.models.wide_resnet import wrn16

__all__ = [
    "BACKBONES",
    "DEFORMATIONS",
    "DOWNSTREAM_NETWORKS",
    "Dino",
    "DinoAdamW",
    "EpochwiseWarmup",
    "FEATURE_BACKBONES",
    "POOLINGS",
    "VIT_SIZES",
    "WarmupCosine",
    "anchornet",
    "anchornet95",
    "as_localizer",
    "attention_map",
    "attention_map_model",
    "attention_of",
    "backbone_normalization",
    "branches_of",
    "build_downstream",
    "build_model",
    "cifar_resnet",
    "cost_of",
    "dino_optimizer",
    "dn100",
    "downstream_normalization",
    "early_exit_classifier",
    "end_to_end",
    "exit_table",
    "feature_backbone",
    "folded",
    "from_preset",
    "hcgnet",
    "hcgnet_b",
    "hcgnet_c",
    "list_models",
    "list_presets",
    "masked_resnet",
    "patch_classifier",
    "prompt_cam",
    "resnet20",
    "resnext",
    "resnext50",
    "rn26",
    "rn38",
    "small_resnet",
    "vit",
    "warped_classifier",
    "with_exits",
    "with_patches",
    "wrn16",
]
