"""Layers: weights around an op, one public layer per file."""

from keras_attn.layers._blocks import get_block, list_blocks, register_block
from keras_attn.layers.attention_map import AttentionMap
from keras_attn.layers.attention_masked_residual import AttentionMaskedResidual
from keras_attn.layers.attention_sampler import AttentionSampler
from keras_attn.layers.bilinear_pooling import BilinearPooling
from keras_attn.layers.branch_decision import BranchDecision
from keras_attn.layers.cbam import CBAM
from keras_attn.layers.class_activation_map import ClassActivationMap
from keras_attn.layers.class_embedding import ClassEmbedding
from keras_attn.layers.class_evidence import ClassEvidence
from keras_attn.layers.class_prompts import ClassPrompts
from keras_attn.layers.classify_patches import ClassifyPatches
from keras_attn.layers.compact_bilinear_pooling import CompactBilinearPooling
from keras_attn.layers.context_pooling import ContextPooling
from keras_attn.layers.coordinate_attention import CoordinateAttention
from keras_attn.layers.crop_patches import CropPatches
from keras_attn.layers.cross_dimensional_pooling import CrossDimensionalPooling
from keras_attn.layers.deformable_conv2d import DeformableConv2D
from keras_attn.layers.dino_head import DinoHead
from keras_attn.layers.early_exit import EarlyExit
from keras_attn.layers.efficient_channel_attention import EfficientChannelAttention
from keras_attn.layers.generalized_mean_pooling import GeneralizedMeanPooling
from keras_attn.layers.global_context import GlobalContext
from keras_attn.layers.identity_start import IdentityStart
from keras_attn.layers.isqrt_cov_pooling import ISQRTCOVPooling
from keras_attn.layers.kernel_pooling import KernelPooling
from keras_attn.layers.localize_patches import LocalizePatches
from keras_attn.layers.margin_softmax import MarginSoftmax
from keras_attn.layers.mpn_cov_pooling import MPNCOVPooling
from keras_attn.layers.patch_embedding import PatchEmbedding
from keras_attn.layers.patch_logits import PatchLogits
from keras_attn.layers.perturbed_argmax import PerturbedArgmax
from keras_attn.layers.position_embedding import PositionEmbedding
from keras_attn.layers.regional_max_pooling import RegionalMaxPooling
from keras_attn.layers.saliency_sampler import SaliencySampler
from keras_attn.layers.self_attention import SelfAttention
from keras_attn.layers.simam import SimAM
from keras_attn.layers.spatial_attention_branch import SpatialAttentionBranch
from keras_attn.layers.spatial_transformer import SpatialTransformer
from keras_attn.layers.squeeze_excitation import SqueezeExcitation
from keras_attn.layers.transformer_block import TransformerBlock
from keras_attn.layers.valid_bottleneck import ValidBottleneck
from keras_attn.layers.volumetric_transformer import VolumetricTransformer
from keras_attn.layers.whitening import Whitening

__all__ = [
    "AttentionMap",
    "AttentionMaskedResidual",
    "AttentionSampler",
    "BilinearPooling",
    "BranchDecision",
    "CBAM",
    "ClassActivationMap",
    "ClassEmbedding",
    "ClassEvidence",
    "ClassPrompts",
    "ClassifyPatches",
    "CompactBilinearPooling",
    "ContextPooling",
    "CoordinateAttention",
    "CropPatches",
    "CrossDimensionalPooling",
    "DeformableConv2D",
    "DinoHead",
    "EarlyExit",
    "EfficientChannelAttention",
    "GeneralizedMeanPooling",
    "GlobalContext",
    "ISQRTCOVPooling",
    "IdentityStart",
    "KernelPooling",
    "LocalizePatches",
    "MPNCOVPooling",
    "MarginSoftmax",
    "PatchEmbedding",
    "PatchLogits",
    "PerturbedArgmax",
    "PositionEmbedding",
    "RegionalMaxPooling",
    "SaliencySampler",
    "SelfAttention",
    "SimAM",
    "SpatialAttentionBranch",
    "SpatialTransformer",
    "SqueezeExcitation",
    "TransformerBlock",
    "ValidBottleneck",
    "VolumetricTransformer",
    "Whitening",
    "get_block",
    "list_blocks",
    "register_block",
]
