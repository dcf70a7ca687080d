"""Options of attention-masked residuals."""

import dataclasses

from keras_attn.training.recipes.blocks import Classifier
from keras_attn.training.recipes.fields import choice, number, plain


@dataclasses.dataclass(frozen=True)
class AttentionMaskedResidualOptions(Classifier):
    """A two-branch ResNet that gets an image and its attention map."""

    stem: str = choice(
        "patch",
        "First layers: `patch`, 4x4 convolutions with stride 4, or `native`, 3x3 ones "
        "without.",
        "patch",
        "native",
    )
    network_size: int = number(
        0,
        "Height and width that images are enlarged to; 0: `image_size`.",
        at_least=0,
    )
    mask_strength: float = number(
        1.0,
        "Degree to which masks replace the plain shortcut, the paper's a.",
        at_least=0,
        at_most=1,
    )
    mask_target: str = choice(
        "shortcut",
        "What is masked: `shortcut`, `branch`, `literal` (both as printed) or `none`.",
        "shortcut",
        "branch",
        "literal",
        "none",
    )
    mask_control: str = choice(
        "none",
        "`constant` or `shuffled` maps instead of the images' own; or `none`.",
        "none",
        "constant",
        "shuffled",
    )
    map_model: str = plain(
        "", "Folder of a run, or model file, that makes the attention maps."
    )
    map_heads: str = plain(
        "all",
        "Heads of the `map_model` that are averaged: `all` of the last block, "
        "`objects`, those of all blocks that see objects, or indices in the last block "
        "such as `0,2`.",
    )
    map_mode: str = choice(
        "cached",
        "Whether maps are `cached`, made `online` of the augmented images, or learned "
        "`end_to_end`; or, of a data set whose objects are known, `true_mask` or "
        "`true_box`: the object's mask or its box in place of a model's map.",
        "cached",
        "online",
        "end_to_end",
        "true_mask",
        "true_box",
    )
    map_cache: str = plain(
        "",
        "Folder of maps made by `keras-attn masks`; empty: beside the `map_model`.",
    )


OPTIONS = AttentionMaskedResidualOptions
