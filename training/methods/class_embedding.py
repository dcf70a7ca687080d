"""Class embedding: a backbone with a row of the paper's table."""

import keras

from keras_attn.losses import mixed_patch_loss
from keras_attn.models import build_model
from keras_attn.preprocessing import ImagePreprocessing
from keras_attn.training.methods.classifier import Classifier, l2_of


class ClassEmbedding(Classifier):
    def make_model(self, recipe, spec):
        images = keras.Input((spec.height, spec.width, 3), name="images")
        options = {}
        if recipe.options.activation != "bn_relu":
            options["activation"] = recipe.options.activation
        return build_model(
            recipe.backbone,
            row=recipe.row,
            num_classes=len(spec.class_names),
            input_tensor=ImagePreprocessing(spec, name="preprocessing")(images),
            weight_decay=l2_of(recipe),
            **options,
        )

    def losses(self, recipe, model):
        if "patch_logits" in model.output:
            return mixed_patch_loss(recipe.options.patch_loss_weight)
        return super().losses(recipe, model)


METHOD = ClassEmbedding()
