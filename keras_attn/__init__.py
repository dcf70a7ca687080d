"""keras-attn: attention and localisation for image classifiers, in Keras 3."""

from keras_attn import convert, explain, layers, losses, metrics, models, ops
from keras_attn.early_exit.policy import ExitPolicy, ExitRule, fit_exit_policy
from keras_attn.graph.calibration import estimate_margin_and_scale
from keras_attn.graph.costs import (
    PatchCost,
    multiply_adds,
    patch_cost,
    trainable_params,
)
from keras_attn.graph.insert import insert
from keras_attn.preprocessing import ImagePreprocessing, ImageSpec, spec_of
from keras_attn.version import __version__

__all__ = [
    "ExitPolicy",
    "ExitRule",
    "ImagePreprocessing",
    "ImageSpec",
    "PatchCost",
    "__version__",
    "convert",
    "estimate_margin_and_scale",
    "explain",
    "fit_exit_policy",
    "insert",
    "layers",
    "losses",
    "metrics",
    "models",
    "multiply_adds",
    "ops",
    "patch_cost",
    "spec_of",
    "trainable_params",
]
