"""The papers' equations as pure functions on tensors: no weights, no state."""

from keras_attn.ops.boxes import iou
from keras_attn.ops.patches import branch_decision, crop_patches, localize_patches
from keras_attn.ops.pooling import window_average
from keras_attn.ops.receptive_field import ReceptiveField, receptive_field
from keras_attn.ops.soft_maximizers import margin_softmax, perturbed_argmax
from keras_attn.ops.window_steps import WindowStep

__all__ = [
    "ReceptiveField",
    "WindowStep",
    "branch_decision",
    "crop_patches",
    "iou",
    "localize_patches",
    "margin_softmax",
    "perturbed_argmax",
    "receptive_field",
    "window_average",
]
