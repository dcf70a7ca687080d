"""What a method adds to the training that all methods share: one module a method.

Each has

- `make_model(recipe, spec)`: the network, raw pixels in, named outputs out,
- `losses(recipe, model)`: the arguments `loss` and `loss_weights` of `compile`,
- `make_feed(recipe, splits, spec)`: the batches, see
  `keras_attn.training.methods.feeds.images`,
- `serving_model(model, run)`: what a trained model is used as,

and may have

- `check(recipe)`: raises ValueError or FileNotFoundError for what is missing or wrong,
- `control_model(model, run)`: what a control is evaluated as, or `None`,
- `explainer`: a `keras_attn.training.explain.protocol.Explainer` of its models; without
  it, they are explained by their outputs,
- `fed_logits(run, images, labels)`: of a run that reads more than images, or `None`.
"""

import importlib


def method_of(recipe):
    """The module of the recipe's method."""
    return importlib.import_module(f"keras_attn.training.methods.{recipe.method}")


def check(recipe):
    """Raises what the method has against a recipe, before any data is read."""
    method = method_of(recipe)
    if hasattr(method, "check"):
        method.check(recipe)
