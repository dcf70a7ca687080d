"""Public names of `keras_attn`; importing them registers its classes with Keras."""

# ruff: noqa: F401

from keras_attn import (
    convert,
    explain,
    layers,
    losses,
    metrics,
    models,
    ops,
    retrieval,
)
from keras_attn.blocks.costs import BlockCost, block_cost
from keras_attn.blocks.insert import insert
from keras_attn.blocks.places import Place, places
from keras_attn.early_exit.policy import ExitPolicy, ExitRule, fit_exit_policy
from keras_attn.early_exit.thresholds import ExitThresholds
from keras_attn.graph.calibration import estimate_margin_and_scale
from keras_attn.graph.costs import (
    PatchCost,
    multiply_adds,
    patch_cost,
    trainable_params,
)
from keras_attn.models.adopted import adopt
from keras_attn.preprocessing import ImagePreprocessing, ImageSpec, spec_of
