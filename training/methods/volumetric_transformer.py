"""Volumetric transformer: a backbone whose last map is warped, and comparators."""

import dataclasses

import keras

from keras_attn.losses.consistency import ConsistencyLoss
from keras_attn.models.feature_backbones import backbone_normalization
from keras_attn.models.warped_classifier import warped_classifier
from keras_attn.preprocessing import ImagePreprocessing
from keras_attn.training.methods.classifier import Classifier, l2_of
from keras_attn.training.methods.feeds.pairs import PairFeed
from keras_attn.training.methods.optimizers import make_optimizer

# Layers behind the backbone, which have no published weights.
NEW_LAYERS = ("deformation", "reduction", "reduction_normalization", "pool", "logits")


class VolumetricTransformer(Classifier):
    has_published_weights = True

    def make_model(self, recipe, spec):
        options = recipe.options
        spec = self.network_spec(recipe, spec)
        images = keras.Input((spec.height, spec.width, 3), name="images")
        return warped_classifier(
            recipe.backbone,
            options.deformation,
            options.pooling,
            num_classes=len(spec.class_names),
            input_tensor=ImagePreprocessing(spec, name="preprocessing")(images),
            weights=options.published_weights,
            options=_layer_options(options),
            reduced_channels=options.reduced_channels,
            weight_decay=l2_of(recipe),
            warped_output=options.consistency_weight > 0,
        )

    def network_spec(self, recipe, spec):
        if not recipe.options.published_weights:
            return spec
        return dataclasses.replace(spec, **backbone_normalization(recipe.backbone))

    def losses(self, recipe, model):
        """Cross-entropy, and the consistency of the warped maps of a class."""
        losses = super().losses(recipe, model)
        if "warped" not in model.output:
            return losses
        losses["loss"]["warped"] = ConsistencyLoss(
            margin=recipe.options.consistency_margin
        )
        weights = {"logits": 1.0, "warped": recipe.options.consistency_weight}
        return {**losses, "loss_weights": weights}

    def make_optimizer(self, recipe, steps):
        rate = recipe.options.new_layers_rate
        factors = dict.fromkeys(NEW_LAYERS, rate) if rate != 1 else None
        return make_optimizer(recipe, steps, factors)

    def make_feed(self, recipe, splits, spec):
        if recipe.options.images_per_class == 1:
            return super().make_feed(recipe, splits, spec)
        return PairFeed(recipe, splits, spec=self.network_spec(recipe, spec))

    def serving_model(self, model, run):
        """Without the warped map, which only the loss needs."""
        kept = {name: value for name, value in model.output.items() if name != "warped"}
        return keras.Model(model.input, kept, name=model.name)


def _layer_options(options):
    """The recipe's arguments of the deformation's layer."""
    if options.deformation != "volumetric_transformer":
        return {}
    return {
        "groups": options.groups or None,
        "window": options.window,
        "temperature": options.temperature,
        "mix_channels": options.mix_channels,
        "probabilistic": options.probabilistic,
    }


METHOD = VolumetricTransformer()
