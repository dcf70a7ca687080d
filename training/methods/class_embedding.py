"""Class embedding: a backbone with a row of the paper's table."""

import keras

from keras_attn.losses import mixed_patch_loss
from keras_attn.models import build_model
from keras_attn.preprocessing import ImagePreprocessing
from keras_attn.training.methods.feeds.images import ImageFeed


def make_model(recipe, spec):
    images = keras.Input((spec.height, spec.width, 3), name="images")
    decay = recipe.weight_decay if recipe.weight_decay_mode == "l2" else 0.0
    options = {}
    if recipe.activation != "bn_relu":
        options["activation"] = recipe.activation
    return build_model(
        recipe.backbone,
        row=recipe.row,
        num_classes=len(spec.class_names),
        input_tensor=ImagePreprocessing(spec, name="preprocessing")(images),
        weight_decay=decay,
        **options,
    )


def losses(recipe, model):
    if "patch_logits" in model.output:
        return mixed_patch_loss(recipe.patch_loss_weight)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return {"loss": {"logits": loss}}


def make_feed(recipe, splits, spec):
    return ImageFeed(recipe, splits, spec)


def serving_model(model, run):
    return model
