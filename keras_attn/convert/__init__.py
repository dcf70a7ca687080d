"""Published weights of other frameworks, read without running anything in them."""

from keras_attn.convert.anchornet95 import (
    ANCHORNET95_IMAGES,
    convert_anchornet95,
    load_anchornet95,
)
from keras_attn.convert.checkpoint import CheckpointError
from keras_attn.convert.dino_head import convert_dino_head, load_dino_head
from keras_attn.convert.state_dict import read_state_dict, strip_prefix
from keras_attn.convert.vit import DINO_IMAGES, convert_vit, load_vit

__all__ = [
    "ANCHORNET95_IMAGES",
    "CheckpointError",
    "DINO_IMAGES",
    "convert_anchornet95",
    "convert_dino_head",
    "convert_vit",
    "load_anchornet95",
    "load_dino_head",
    "load_vit",
    "read_state_dict",
    "strip_prefix",
]
