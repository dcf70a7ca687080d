"""AnchorNet, and networks that classify whole images or localised patches."""

import keras

from keras_attn.models import anchornet
from keras_attn.models.anchornet import without_auxiliary
from keras_attn.preprocessing import ImagePreprocessing
from training.feed import ImageFeed


def make_model(recipe, spec):
    decay = recipe.weight_decay if recipe.weight_decay_mode == "l2" else 0.0
    options = {"num_classes": len(spec.class_names), "weight_decay": decay}
    if recipe.backbone == "anchornet":
        images = keras.Input((spec.height, spec.width, 3), name="images")
        normalized = ImagePreprocessing(spec, name="preprocessing")(images)
        return anchornet(input_tensor=normalized, auxiliary=True, **options)
    from keras_attn.models.downstream import build_downstream

    # Any size, since the same network sees whole images and patches.
    images = keras.Input((None, None, 3), name="images")
    normalized = ImagePreprocessing(spec, resize=False, name="preprocessing")(images)
    return build_downstream(recipe.backbone, input_tensor=normalized, **options)


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


def make_feed(recipe, splits):
    return ImageFeed(recipe, splits)


def serving_model(model, run):
    return without_auxiliary(model)
