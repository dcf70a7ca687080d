"""Layers: weights around an op, one public layer a file."""

from keras_attn.layers.branch_decision import BranchDecision
from keras_attn.layers.class_activation_map import ClassActivationMap
from keras_attn.layers.class_embedding import ClassEmbedding
from keras_attn.layers.class_evidence import ClassEvidence
from keras_attn.layers.classify_patches import ClassifyPatches
from keras_attn.layers.context_pooling import ContextPooling
from keras_attn.layers.crop_patches import CropPatches
from keras_attn.layers.early_exit import EarlyExit
from keras_attn.layers.localize_patches import LocalizePatches
from keras_attn.layers.margin_softmax import MarginSoftmax
from keras_attn.layers.patch_logits import PatchLogits
from keras_attn.layers.perturbed_argmax import PerturbedArgmax
from keras_attn.layers.spatial_attention_branch import SpatialAttentionBranch
from keras_attn.layers.squeeze_excitation import SqueezeExcitation
from keras_attn.layers.valid_bottleneck import ValidBottleneck

__all__ = [
    "BranchDecision",
    "ClassActivationMap",
    "ClassEmbedding",
    "ClassEvidence",
    "ClassifyPatches",
    "ContextPooling",
    "CropPatches",
    "EarlyExit",
    "LocalizePatches",
    "MarginSoftmax",
    "PatchLogits",
    "PerturbedArgmax",
    "SpatialAttentionBranch",
    "SqueezeExcitation",
    "ValidBottleneck",
]
