"""What the commands are and do: arguments, and a thin function over the Python API.

Each module has `add(command)`, which adds its commands with `arguments.Commands`.
Imports are inside the functions, so that a command loads what it needs and no more.
"""

import importlib

MODULES = (
    "train",
    "tune",
    "evaluate",
    "report",
    "explain",
    "retrieval",
    "masks",
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
