"""Recipes and experiments by name."""

import difflib
import importlib
import pkgutil

from keras_attn._checks import did_you_mean
from keras_attn.training import recipes

DEFAULT = "generated_rn26_class_embedding"


def _families():
    """The modules of this package that hold experiments, and recipes where new."""
    for found in pkgutil.iter_modules(recipes.__path__, f"{recipes.__name__}."):
        if found.name != __name__:
            module = importlib.import_module(found.name)
            if hasattr(module, "EXPERIMENTS"):
                yield module


FAMILIES = tuple(_families())
RECIPES = {
    recipe.name: recipe
    for family in FAMILIES
    for recipe in getattr(family, "RECIPES", ())
}


def get_recipe(name):
    """The recipe of that name.

    Raises:
        ValueError: If there is none; the message names the nearest.
    """
    if name not in RECIPES:
        nearest = difflib.get_close_matches(str(name), RECIPES, 3, cutoff=0.4)
        hint = f" Nearest: {', '.join(nearest)}." if nearest else ""
        raise ValueError(
            f"Expected the name of a recipe. Received: {name!r}.{hint} "
            "`keras-attn recipes` lists them all."
        )
    return RECIPES[name]


EXPERIMENTS = {
    experiment.name: experiment
    for family in FAMILIES
    for experiment in family.EXPERIMENTS
}


def get_experiment(name):
    """The experiment of that name, `METHOD_TABLE_DATASET`.

    Raises:
        ValueError: If there is none; the message lists them.
    """
    if name not in EXPERIMENTS:
        raise ValueError(
            f"Expected one of {', '.join(EXPERIMENTS)}. Received: {name!r}"
            + did_you_mean(name, EXPERIMENTS)
        )
    return EXPERIMENTS[name]
