"""Narrow stand-ins for the networks of the recipes, so that files stay small.

Made of public layers only: `make.py` trains them with the code of commit a8c9ace, the
tests resume the training with today's.
"""

import keras
from keras import layers

from keras_attn.layers import (
    AttentionMaskedResidual,
    BranchDecision,
    ClassEmbedding,
    ClassEvidence,
    VolumetricTransformer,
)

# Width, blocks and heads of the transformer `tiny`.
VIT_SIZE = (8, 1, 2)


def classifier(source, features, num_classes, **outputs):
    x = layers.GlobalAveragePooling2D(name="pool")(features)
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    (source,) = keras.utils.get_source_inputs(source)
    return keras.Model(source, {"logits": logits, **outputs})


def class_embedding(backbone, row, num_classes, input_tensor, weight_decay, **_):
    """In place of `build_model`."""
    x = layers.Conv2D(6, 8, 8, name="stem")(input_tensor)
    x = layers.BatchNormalization(name="normalization")(x)
    x = layers.Dropout(0.2, name="dropout")(layers.ReLU(name="relu")(x))
    x = layers.Identity(name="stage3")(x)
    found = ClassEmbedding(num_classes, name="class_embedding")(x)
    patch_logits = layers.Identity(name="patch_logits")(found["patch_logits"])
    return classifier(
        input_tensor, found["features"], num_classes, patch_logits=patch_logits
    )


def anchornet(input_tensor, num_classes, weight_decay, auxiliary):
    """In place of `anchornet`: two branches of one strided convolution each."""
    outputs, sizes = {}, (6, 10)
    for size in sizes:
        x = layers.Conv2D(4, size, 2, activation="relu")(input_tensor)
        branch = ClassEvidence(num_classes, name=f"evidence_{size}")(x)
        outputs |= {f"{kind}_{size}": tensor for kind, tensor in branch.items()}
        if auxiliary:
            pooled = layers.GlobalAveragePooling2D()(x)
            outputs[f"auxiliary_{size}"] = layers.Dense(num_classes)(pooled)
    decided = BranchDecision(name="logits")([outputs[f"logits_{s}"] for s in sizes])
    (source,) = keras.utils.get_source_inputs(input_tensor)
    return keras.Model(source, {"logits": decided, **outputs})


def downstream(name, input_tensor, num_classes, weights, weight_decay):
    """In place of `build_downstream`."""
    x = layers.Conv2D(5, 3, activation="relu")(input_tensor)
    return classifier(input_tensor, x, num_classes)


def feature_backbone(name, inputs, **_):
    """In place of `feature_backbone`."""
    x = layers.Conv2D(8, 8, 4, activation="relu", name="stem")(inputs)
    return layers.Conv2D(8, 3, activation="relu", name="last")(x)


def volumetric_transformer(
    groups, window, temperature, mix_channels, probabilistic, name
):
    """In place of `VolumetricTransformer`."""
    return VolumetricTransformer(
        groups,
        window,
        temperature,
        (4, 6),
        mix_channels=mix_channels,
        probabilistic=probabilistic,
        name=name,
    )


def masked_resnet(
    depth=8,
    num_classes=10,
    input_tensor=None,
    map_tensor=None,
    strength=1.0,
    target="shortcut",
    **_,
):
    """In place of `masked_resnet`: one block of each branch."""
    if map_tensor is None:
        map_tensor = keras.Input((*input_tensor.shape[1:3], 1), name="attention_map")
    factor = input_tensor.shape[1] // map_tensor.shape[1]
    mask = layers.UpSampling2D(factor)(map_tensor) if factor > 1 else map_tensor
    x = layers.Conv2D(6, 4, 4, name="stem")(input_tensor)
    mask = layers.Conv2D(6, 4, 4, activation="sigmoid", name="mask_1")(mask)
    branch = layers.Conv2D(6, 3, padding="same", name="branch")(x)
    residual = AttentionMaskedResidual(strength, target)
    x = residual([branch, x, mask])
    logits = layers.Dense(num_classes, name="logits")(
        layers.GlobalAveragePooling2D(name="pool")(x)
    )
    sources = [keras.utils.get_source_inputs(t)[0] for t in (input_tensor, map_tensor)]
    inputs = dict(zip(("images", "attention_map"), sources, strict=True))
    if sources[0] is sources[1]:
        inputs = sources[0]
    return keras.Model(inputs, {"logits": logits, "mask_1": mask})
