"""What a method adds to the training that all methods share: one module a method.

Each has

- `make_model(recipe, spec)`: the network, raw pixels in, named outputs out,
- `losses(recipe, model)`: the arguments `loss` and `loss_weights` of `compile`,
- `make_feed(recipe, splits)`: the batches, see `training.feed`,
- `serving_model(model, run)`: what a trained model is used as.
"""

import importlib


def method_of(recipe):
    """The module of the recipe's method."""
    return importlib.import_module(f"training.methods.{recipe.method}")
