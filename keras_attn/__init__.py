"""keras-attn: attention and localisation for image classifiers, in Keras 3."""

# ruff: noqa: F403, F405

import os
import sys

from keras_attn.version import __version__

__all__ = [
    "BlockCost",
    "ExitPolicy",
    "ExitRule",
    "ExitThresholds",
    "ImagePreprocessing",
    "ImageSpec",
    "PatchCost",
    "Place",
    "__version__",
    "adopt",
    "block_cost",
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
    "places",
    "retrieval",
    "spec_of",
    "trainable_params",
]


def _is_command_line():
    """`True` in a process of `keras-attn`, which answers `--help` without Keras."""
    # Modules of the command, and of the processes that it starts.
    own = {"keras_attn.training.cli", "keras_attn.training.bulk.process"}
    program = os.path.basename(sys.argv[0]) if sys.argv else ""
    is_module = program == "-m" and not own.isdisjoint(sys.orig_argv)
    return is_module or program in ("keras-attn", "keras-attn.exe")


def __getattr__(name):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from keras_attn import _api

    return getattr(_api, name)


# `load_model` finds a class only once it is registered, so everything is imported here.
if not _is_command_line():
    from keras_attn._api import *
