"""The papers' equations as pure functions on tensors: no weights, no state."""

import importlib

from keras_attn.ops.attention_maps import aggregate_heads, normalize_map
from keras_attn.ops.boxes import heat_map_box, iou
from keras_attn.ops.image_triplets import triplets
from keras_attn.ops.patches import branch_decision, crop_patches, localize_patches
from keras_attn.ops.pooling import window_average
from keras_attn.ops.resize import upsample
from keras_attn.ops.sampling import bilinear_sample, cell_grid, warp
from keras_attn.ops.soft_maximizers import margin_softmax, perturbed_argmax

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

# These stand in `keras_attn.graph`, which imports this package.
_IN_GRAPH = {
    "ReceptiveField": "receptive_field",
    "receptive_field": "receptive_field",
    "WindowStep": "window_steps",
}


def __getattr__(name):
    if name not in _IN_GRAPH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"keras_attn.graph.{_IN_GRAPH[name]}")
    return getattr(module, name)
