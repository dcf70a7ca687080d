"""The commands: their arguments, and thin functions over the Python API.

Each module has `add(command)`, which adds its commands with `arguments.Commands`.
Imports are inside the functions, so that a command loads only what it needs.
"""

import importlib

MODULES = (
    "train",
    "finetune",
    "tune",
    "adopt",
    "evaluate",
    "report",
    "explain",
    "places",
    "retrieval",
    "masks",
    "bulk",
    "export",
    "serve",
    "view",
    "data",
    "exit_policy",
)


def add_all(command):
    """Adds all commands."""
    for name in MODULES:
        importlib.import_module(f"keras_attn.training.commands.{name}").add(command)
