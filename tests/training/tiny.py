"""A recipe that trains in a second or two: 50 images, a two-layer network."""

import keras
from keras import layers

from keras_attn.models.building import attach_row, classifier
from keras_attn.training.recipes.schema import Recipe


def tiny_recipe(**changes):
    values = {
        "name": "tiny",
        "dataset": "generated",
        "split": "official",
        "row": "class_embedding",
        "batch_size": 10,
        "epochs": 3,
        "optimizer": "adam",
        "learning_rate": 1e-2,
        "examples": 130,
        # Determinism cannot be switched off again, so it would stay for other tests.
        "deterministic": False,
    }
    return Recipe(**{**values, **changes})


def tiny_model(
    backbone,
    row,
    num_classes,
    input_tensor,
    weight_decay=0.0,
    dropout=0.2,
    normalized=True,
):
    """Stands in for `keras_attn.models.build_model`, with the same layer names."""
    del backbone
    regularizer = keras.regularizers.L2(weight_decay) if weight_decay else None
    x = layers.Conv2D(6, 8, 8, kernel_regularizer=regularizer, name="stem")(
        input_tensor
    )
    if normalized:
        x = layers.BatchNormalization(name="normalization")(x)
    x = layers.ReLU(name="relu")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    x = layers.Identity(name="stage3")(x)
    x, patch_logits = attach_row(x, row, num_classes, decay=weight_decay)
    return classifier(input_tensor, x, patch_logits, num_classes, "tiny", weight_decay)
