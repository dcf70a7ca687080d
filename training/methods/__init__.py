"""The methods: what each adds to the training that all share, a module each.

Each has `METHOD`, see `keras_attn.training.methods.protocol`. The options of its
recipes are the module of the same name in `keras_attn.training.recipes.options`.
"""

import importlib


def method_of(recipe):
    """The `Method` of a recipe."""
    return importlib.import_module(f"{__name__}.{recipe.method}").METHOD
