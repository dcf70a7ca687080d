"""Published weights of other frameworks, read without running anything in them."""

from keras_attn.convert.anchornet95 import (
    ANCHORNET95_IMAGES,
    convert_anchornet95,
    load_anchornet95,
)
from keras_attn.convert.checkpoint import CheckpointError
from keras_attn.convert.state_dict import read_state_dict, strip_prefix

__all__ = [
    "ANCHORNET95_IMAGES",
    "CheckpointError",
    "convert_anchornet95",
    "load_anchornet95",
    "read_state_dict",
    "strip_prefix",
]
