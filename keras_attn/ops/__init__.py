"""The papers' equations as pure functions on tensors: no weights, no state."""

from keras_attn.ops.attention_maps import aggregate_heads, normalize_map, upsample
from keras_attn.ops.boxes import heat_map_box, iou
from keras_attn.ops.patches import branch_decision, crop_patches, localize_patches
from keras_attn.ops.pooling import window_average
from keras_attn.ops.receptive_field import ReceptiveField, receptive_field
from keras_attn.ops.soft_maximizers import margin_softmax, perturbed_argmax
from keras_attn.ops.triplets import triplets
from keras_attn.ops.warp import bilinear_sample, cell_grid, warp
from keras_attn.ops.window_steps import WindowStep

__all__ = [
    "ReceptiveField",
    "WindowStep",
    "aggregate_heads",
    "bilinear_sample",
    "branch_decision",
    "cell_grid",
    "crop_patches",
    "heat_map_box",
    "iou",
    "localize_patches",
    "margin_softmax",
    "normalize_map",
    "perturbed_argmax",
    "receptive_field",
    "triplets",
    "upsample",
    "warp",
    "window_average",
]
