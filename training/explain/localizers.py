"""Localisers among trained models, and the settings by which they choose patches."""

import dataclasses
from typing import NamedTuple

import keras
import numpy as np

from keras_attn.graph.keras_graph import layers_of
from keras_attn.models.localizer import with_patches
from keras_attn.training.recipes.options.anchornet import AnchorNetOptions
from keras_attn.training.trained import Trained

# In place of the recipes' defaults where those are for another number of branches.
ANY_BRANCHES = {"max_patches": 5, "coverage": 1.0}


def has_evidence(model):
    """True if a model returns the evidence of every cell for every class."""
    return any(name.startswith("evidence_") for name in model.output)


def check_evidence(model):
    """Raises ValueError for a model without evidence."""
    if not has_evidence(model):
        raise ValueError(
            "Expected a localiser, a model with outputs 'evidence_...', as method "
            f"anchornet trains. Received: {model.name!r} with outputs "
            f"{list(model.output)}"
        )


def localizer_of(model):
    """The localiser that a model is or contains.

    Raises:
        ValueError: If there is none.
    """
    if has_evidence(model):
        return model
    for layer in layers_of(model):
        if isinstance(layer, keras.Model) and isinstance(layer.output, dict):
            if has_evidence(layer):
                return layer
    return check_evidence(model)


def patch_settings(trained, max_patches=None, iou_threshold=None, coverage=None):
    """Number and choice of patches, as arguments of `with_patches`.

    Args:
        trained: `Trained` localiser.
        max_patches, iou_threshold, coverage: See `with_patches`; `None`: those of the
            run's recipe. The defaults of recipes are for three branches; for
            another number, up to 5 patches among all cells.

    Returns:
        Dict of the three.
    """
    branches = sum(name.startswith("evidence_") for name in trained.model.output)
    defaults = AnchorNetOptions().patch_settings()
    settings = dict(defaults)
    options = trained.run.recipe.options if trained.run else None
    if isinstance(options, AnchorNetOptions):
        settings = options.patch_settings()
    for name, value in ANY_BRANCHES.items():
        if settings[name] == defaults[name] and len(defaults[name]) != branches:
            settings[name] = value
    given = {
        "max_patches": max_patches,
        "iou_threshold": iou_threshold,
        "coverage": coverage,
    }
    settings.update({name: value for name, value in given.items() if value is not None})
    # One value for all branches is a number.
    return {
        name: value[0] if np.size(value) == 1 and np.ndim(value) else value
        for name, value in settings.items()
    }


def chooses_patches(model):
    """True if a model has the patches among its outputs."""
    return {"boxes", "scores", "valid", "branch"} <= set(model.output)


class Localizing(NamedTuple):
    """A `Trained` that chooses patches, and the settings by which it does.

    The settings are those of `with_patches`, or `None` where the model has its own.
    """

    localizer: Trained
    settings: dict | None


def localizing(trained, **settings):
    """The trained model with its patches among the outputs, a `Localizing`.

    A model that chooses patches itself is left as it is; settings are for localisers
    only, see `patch_settings`.

    Raises:
        ValueError: If the model has no evidence, or settings are given that are fixed.
    """
    if chooses_patches(trained.model):
        fixed = {name: value for name, value in settings.items() if value is not None}
        if fixed:
            raise ValueError(
                "Expected a localiser, to choose patches of. Received: "
                f"{trained.path}, whose own settings are built in, and {fixed}"
            )
        return Localizing(trained, None)
    check_evidence(trained.model)
    settings = patch_settings(trained, **settings)
    model = with_patches(trained.model, **settings)
    return Localizing(dataclasses.replace(trained, model=model), settings)
