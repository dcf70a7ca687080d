"""Headings of the reference, and the names under each."""

# Module -> heading -> names; names that are in no list come last, under "Others".
NAMES = {
    "keras_attn.layers": {
        "Blocks": "IdentityStart get_block list_blocks register_block "
        "SqueezeExcitation EfficientChannelAttention CBAM GlobalContext "
        "CoordinateAttention SimAM ClassEmbedding",
        "Class embedding": "PatchLogits MarginSoftmax PerturbedArgmax",
        "Warps": "VolumetricTransformer SpatialTransformer DeformableConv2D "
        "SaliencySampler AttentionSampler",
        "Pooling": "BilinearPooling CompactBilinearPooling KernelPooling MPNCOVPooling "
        "ISQRTCOVPooling GeneralizedMeanPooling RegionalMaxPooling "
        "CrossDimensionalPooling ContextPooling Whitening",
        "Patches and early exit": "ValidBottleneck SpatialAttentionBranch "
        "ClassEvidence ClassActivationMap BranchDecision LocalizePatches CropPatches "
        "ClassifyPatches EarlyExit",
        "Transformers and their maps": "PatchEmbedding PositionEmbedding SelfAttention "
        "TransformerBlock AttentionMap AttentionMaskedResidual DinoHead ClassPrompts",
    },
    "keras_attn.models": {
        "By name": "list_presets from_preset list_models build_model build_downstream "
        "feature_backbone BACKBONES DOWNSTREAM_NETWORKS FEATURE_BACKBONES DEFORMATIONS "
        "POOLINGS VIT_SIZES backbone_normalization downstream_normalization",
        "Networks": "rn26 rn38 wrn16 dn100 resnet20 cifar_resnet small_resnet resnext "
        "resnext50 hcgnet hcgnet_b hcgnet_c warped_classifier masked_resnet end_to_end",
        "Patches and early exit": "anchornet anchornet95 as_localizer branches_of "
        "with_patches patch_classifier early_exit_classifier with_exits exit_table "
        "cost_of",
        "Transformers": "vit prompt_cam attention_map attention_map_model "
        "attention_of Dino DinoAdamW dino_optimizer EpochwiseWarmup WarmupCosine",
    },
    "keras_attn.explain": {
        "Slopes and features": "grad_cam grad_cam_plus_plus hires_cam layer_cam "
        "class_activation_map last_map",
        "Pixels": "integrated_gradients smooth_grad occlusion score_cam",
        "Transformers": "attention_maps attention_rollout gradient_rollout legrad",
        "Targets": "pixels similarity",
        "Objects without labels": "patch_features object_heads head_features "
        "token_cut lost boxes_of_masks",
    },
    "keras_attn.metrics": {
        "Explanations": "deletion_curve insertion_curve road_curve "
        "faithfulness_correlation max_sensitivity sparseness randomization_check",
        "Localisation": "pointing_game energy_inside_box relevance_mass_accuracy "
        "relevance_rank_accuracy localization_errors corloc",
        "Retrieval": "average_precision precision_at recall_at retrieval_map "
        "retrieval_scores revisited_scores",
        "Neighbours": "knn_accuracy knn_votes",
    },
}


def grouped(module, names):
    """Yields `(heading, names)`; without groups the heading is `None`."""
    groups = {key: text.split() for key, text in NAMES.get(module, {}).items()}
    for heading, wanted in groups.items():
        yield heading, [name for name in wanted if name in names]
    listed = {name for wanted in groups.values() for name in wanted}
    others = [name for name in names if name not in listed]
    if others:
        yield "Others" if groups else None, others
