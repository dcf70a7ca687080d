"""Volumetric transformer: a backbone whose last map is warped, and comparators."""

import dataclasses

import keras

from keras_attn.losses.consistency import ConsistencyLoss
from keras_attn.models.feature_backbones import backbone_normalization
from keras_attn.models.warped_classifier import warped_classifier
from keras_attn.preprocessing import ImagePreprocessing
from keras_attn.training.methods.feeds.images import ImageFeed
from keras_attn.training.methods.feeds.pairs import PairFeed

# Layers behind the backbone, which have no published weights.
NEW_LAYERS = ("deformation", "reduction", "reduction_normalization", "pool", "logits")


def make_model(recipe, spec):
    spec = _network_spec(recipe, spec)
    images = keras.Input((spec.height, spec.width, 3), name="images")
    return warped_classifier(
        recipe.backbone,
        recipe.deformation,
        recipe.pooling,
        num_classes=len(spec.class_names),
        input_tensor=ImagePreprocessing(spec, name="preprocessing")(images),
        weights=recipe.published_weights,
        options=_options(recipe),
        reduced_channels=recipe.reduced_channels,
        weight_decay=recipe.weight_decay if recipe.weight_decay_mode == "l2" else 0.0,
        warped_output=recipe.consistency_weight > 0,
    )


def _network_spec(recipe, spec):
    """The spec with the normalisation of published weights, if there are any."""
    if not recipe.published_weights:
        return spec
    return dataclasses.replace(spec, **backbone_normalization(recipe.backbone))


def _options(recipe):
    """The recipe's arguments of the deformation's layer."""
    if recipe.deformation != "volumetric_transformer":
        return {}
    return {
        "groups": recipe.groups or None,
        "window": recipe.window,
        "temperature": recipe.temperature,
        "mix_channels": recipe.mix_channels,
        "probabilistic": recipe.probabilistic,
    }


def losses(recipe, model):
    """Cross-entropy, and the consistency of the warped maps of a class."""
    loss = {"logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}
    if "warped" not in model.output:
        return {"loss": loss}
    loss["warped"] = ConsistencyLoss(margin=recipe.consistency_margin)
    weights = {"logits": 1.0, "warped": recipe.consistency_weight}
    return {"loss": loss, "loss_weights": weights}


def make_feed(recipe, splits, spec):
    feed = PairFeed if recipe.images_per_class > 1 else ImageFeed
    return feed(recipe, splits, spec=_network_spec(recipe, spec))


def serving_model(model, run):
    """Without the warped map, which only the loss needs."""
    kept = {name: value for name, value in model.output.items() if name != "warped"}
    return keras.Model(model.input, kept, name=model.name)
