"""AnchorNet, and networks that classify whole images or localised patches."""

import dataclasses

import keras

from keras_attn.models.anchornet import BRANCHES, anchornet, without_auxiliary
from keras_attn.models.anchornet95 import anchornet95
from keras_attn.models.downstream import build_downstream, downstream_normalization
from keras_attn.models.patch_classifier import patch_classifier
from keras_attn.preprocessing import ImagePreprocessing
from keras_attn.training.methods.feeds.images import ImageFeed
from keras_attn.training.methods.feeds.patches import LOCALIZER, PatchFeed
from keras_attn.training.runs.outputs import read_model

# Patch sizes of AnchorNet's branches.
SIZES = tuple(BRANCHES)


def make_model(recipe, spec):
    decay = recipe.weight_decay if recipe.weight_decay_mode == "l2" else 0.0
    options = {"num_classes": len(spec.class_names), "weight_decay": decay}
    if recipe.backbone in ("anchornet", "anchornet95"):
        images = keras.Input((spec.height, spec.width, 3), name="images")
        normalized = ImagePreprocessing(spec, name="preprocessing")(images)
        if recipe.backbone == "anchornet95":
            return anchornet95(input_tensor=normalized, **options)
        return anchornet(input_tensor=normalized, auxiliary=True, **options)
    spec = _network_spec(recipe, spec)
    # Any size, since the same network sees whole images and patches.
    images = keras.Input((None, None, 3), name="images")
    normalized = ImagePreprocessing(spec, resize=False, name="preprocessing")(images)
    return build_downstream(
        recipe.backbone,
        input_tensor=normalized,
        weights=recipe.published_weights,
        **options,
    )


def _network_spec(recipe, spec):
    """The spec with the normalisation of published weights, if there are any."""
    if not recipe.published_weights:
        return spec
    return dataclasses.replace(spec, **downstream_normalization(recipe.backbone))


def losses(recipe, model):
    """Cross-entropy with unit weight for every branch and auxiliary head."""
    heads = [
        name for name in model.output if name.startswith(("logits_", "auxiliary_"))
    ]
    return {
        "loss": {
            name: keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            for name in heads or ["logits"]
        }
    }


def make_feed(recipe, splits, spec):
    if recipe.localizer:
        return PatchFeed(recipe, splits)
    return ImageFeed(recipe, splits, _network_spec(recipe, spec))


def serving_model(model, run):
    """Without what only training needs; on patches, around the run's localiser."""
    if not run.recipe.localizer:
        return without_auxiliary(model)
    return patch_classifier(
        without_auxiliary(read_model(run.checkpoints / LOCALIZER)),
        model,
        **run.recipe.patch_settings(),
    )
