"""AnchorNet, and networks that classify whole images or localised patches."""

import dataclasses

import keras

from keras_attn.models.anchornet import BRANCHES, anchornet, without_auxiliary
from keras_attn.models.anchornet95 import anchornet95
from keras_attn.models.downstream import build_downstream, downstream_normalization
from keras_attn.models.patch_classifier import patch_classifier
from keras_attn.preprocessing import ImagePreprocessing
from keras_attn.training.methods.classifier import Classifier, l2_of
from keras_attn.training.methods.feeds.patches import LOCALIZER, PatchFeed
from keras_attn.training.runs.run import read_model

# Patch sizes of AnchorNet's branches.
SIZES = tuple(BRANCHES)


class AnchorNet(Classifier):
    has_published_weights = True

    def check(self, recipe):
        super().check(recipe)
        given = recipe.options.published_weights
        if given and recipe.backbone in ("anchornet", "anchornet95"):
            raise ValueError(
                f"Expected initial of a recipe of {recipe.backbone}, which has no "
                "published weights of Keras, to be the folder of a run or a .keras "
                f"file. Received: initial={given!r}"
            )

    def make_model(self, recipe, spec):
        options = {
            "num_classes": len(spec.class_names),
            "weight_decay": l2_of(recipe),
        }
        if recipe.backbone in ("anchornet", "anchornet95"):
            images = keras.Input((spec.height, spec.width, 3), name="images")
            normalized = ImagePreprocessing(spec, name="preprocessing")(images)
            if recipe.backbone == "anchornet95":
                return anchornet95(input_tensor=normalized, **options)
            return anchornet(input_tensor=normalized, auxiliary=True, **options)
        spec = self.network_spec(recipe, spec)
        # Any size, since the same network sees whole images and patches.
        images = keras.Input((None, None, 3), name="images")
        layer = ImagePreprocessing(spec, resize=False, name="preprocessing")
        return build_downstream(
            recipe.backbone,
            input_tensor=layer(images),
            weights=recipe.options.published_weights,
            **options,
        )

    def network_spec(self, recipe, spec):
        if not recipe.options.published_weights:
            return spec
        return dataclasses.replace(spec, **downstream_normalization(recipe.backbone))

    def losses(self, recipe, model):
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

    def make_feed(self, recipe, splits, spec):
        if recipe.options.localizer:
            return PatchFeed(recipe, splits)
        return super().make_feed(recipe, splits, spec)

    def serving_model(self, model, run):
        """Without what only training needs; on patches, around the localiser."""
        options = run.recipe.options
        if not options.localizer:
            return without_auxiliary(model)
        return patch_classifier(
            without_auxiliary(read_model(run.checkpoints / LOCALIZER)),
            model,
            **options.patch_settings(),
        )


METHOD = AnchorNet()
