"""The models of `make.py`, and the inputs that they are compared on."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_attn.layers as attn
from keras_attn import ExitRule, ImagePreprocessing, ImageSpec
from keras_attn.models import (
    POOLINGS,
    as_localizer,
    attention_map_model,
    attention_of,
    early_exit_classifier,
    end_to_end,
    masked_resnet,
    patch_classifier,
    small_resnet,
    vit,
    with_patches,
)

# An earlier Keras does not know all arguments of the layers in these files.
NEEDS_KERAS = pytest.mark.skipif(
    tuple(map(int, keras.__version__.split(".")[:2])) < (3, 15),
    reason="the files were written by Keras 3.15",
)
CLASSES = 5
SPEC = ImageSpec(20, 16, class_names=("ant", "bee", "cat", "dog", "emu"))
L2 = keras.regularizers.L2(1e-4)


def inputs_of(model):
    """Two images of smooth colours and noise for every input of a model."""
    random = np.random.default_rng(7)
    given = {}
    for tensor in model.inputs:
        shape = (2, *(side or 24 for side in tensor.shape[1:]))
        values = random.uniform(0, 255 if shape[-1] == 3 else 1, shape)
        given[tensor.name] = (values * random.uniform(0.2, 1, (2, 1, 1, 1))).astype(
            "float32"
        )
    return given if isinstance(model.input, dict) else next(iter(given.values()))


def draw_weights(model, seed=3):
    """Weights of few digits, the same for every machine; returns the model."""
    random = np.random.default_rng(seed)
    for weight in model.weights:
        if "float" not in weight.dtype or "exponent" in weight.path:
            continue
        values = np.round(random.normal(0, 0.3, weight.shape) * 64) / 64
        if weight.path.endswith("variance") or "projection_matrix" in weight.path:
            values = np.abs(values) + 0.5
        weight.assign(values)
    return model


def make_models():
    """Dict from the name of a family to its model."""
    made = {
        "class_embedding": _class_embedding(),
        "anchornet": _anchornet(),
        "poolings": _poolings(),
        "warps": _warps(),
        "small_resnet": small_resnet((24, 24, 3), CLASSES, 4, 1, (1, 2)),
        "warped_classifier": _warped_classifier(),
        "masked_residual": _masked_residual(),
        "masked_resnet": masked_resnet(
            8, CLASSES, "native", strength=0.5, input_shape=(8, 12, 3)
        ),
        "vit": vit((8, 2, 2), (4, 4), num_classes=CLASSES, input_tensor=_pixels()[1]),
        "dino_head": _dino_head(),
        "self_attention": _self_attention(),
    }
    for model in made.values():
        draw_weights(model)
    made["attention"] = attention_of(made["vit"], 0)
    made["attention_map"] = attention_map_model(made["vit"], "mean", "minmax", 2)
    maps = vit((8, 1, 2), 4, (8, 12, 3))
    made["end_to_end"] = end_to_end(
        attention_map_model(draw_weights(maps), "mean", "minmax"),
        masked_resnet(8, CLASSES, "native", input_shape=(8, 12, 3)),
    )
    return {**made, **_patches()}


def _pixels(**options):
    images = keras.Input((SPEC.height, SPEC.width, 3), name="images")
    return images, ImagePreprocessing(SPEC, name="preprocessing", **options)(images)


def _class_embedding():
    images, pixels = _pixels()
    x = layers.Conv2D(8, 3, 2, name="stem")(pixels)
    first = attn.ClassEmbedding(CLASSES, window=3, kernel_regularizer=L2)(x)
    second = attn.ClassEmbedding(
        CLASSES, filters=6, merge="concatenate", use_bias=True, name="concatenated"
    )(first["features"])
    pooled = layers.GlobalAveragePooling2D()(second["features"])
    logits = layers.Dense(CLASSES, dtype="float32", name="logits")(pooled)
    outputs = {
        "logits": logits,
        "patch_logits": second["patch_logits"],
        "auxiliary": attn.PatchLogits(CLASSES, window=3, name="auxiliary")(x),
        "margin_softmax": attn.MarginSoftmax(2.0, 0.7, 1.5)(logits),
        "perturbed_argmax": attn.PerturbedArgmax(0.5, samples=4000, seed=1)(logits),
    }
    return keras.Model(images, outputs, name="class_embedding")


def _anchornet():
    images, pixels = _pixels()
    x = layers.Conv2D(6, 3, 2, name="stem")(pixels)
    x = attn.ValidBottleneck(6, 8, squeeze_units=4, name="bottleneck")(x)
    x = attn.SqueezeExcitation(4, name="excitation")(x)
    outputs = {}
    for size, aggregation in ((2, "sum"), (3, "mean")):
        y = attn.ValidBottleneck(8, 8, size, shortcut="centre")(x)
        attention = attn.SpatialAttentionBranch(kernel_regularizer=L2)(y)
        evidence = attn.ClassEvidence(CLASSES, aggregation, name=f"evidence_{size}")
        outputs |= {f"{k}_{size}": v for k, v in evidence([y, attention]).items()}
        outputs[f"attention_{size}"] = attention
    decided = [outputs[f"logits_{size}"] for size in (2, 3)]
    outputs["logits"] = attn.BranchDecision(name="logits")(decided)
    return keras.Model(images, outputs, name="anchornet")


def _poolings():
    images, pixels = _pixels()
    x = layers.Conv2D(4, 3, 2, activation="sigmoid", name="stem")(pixels)
    options = {
        "compact_bilinear": {"dimension": 16, "seed": 2},
        "kernel": {"degree": 3, "dimension": 8, "seed": 2},
    }
    outputs = {
        name: pooling(name=name, **options.get(name, {}))(x)
        for name, pooling in POOLINGS.items()
    }
    outputs["context"] = attn.ContextPooling(name="context")(x)
    whitening = attn.Whitening(3, name="whitening")
    outputs["whitening"] = whitening(outputs["generalized_mean"])
    return keras.Model(images, outputs, name="poolings")


def _warps():
    images, pixels = _pixels()
    x = layers.Conv2D(8, 3, 2, name="stem")(pixels)
    warps = {
        "spatial": attn.SpatialTransformer(6, 4, name="spatial"),
        "saliency": attn.SaliencySampler(name="saliency"),
        "attention": attn.AttentionSampler(5.0, name="attention"),
        "volumetric": attn.VolumetricTransformer(
            4, 3, 5.0, features=(4, 6), name="volumetric"
        ),
        "regressed": attn.VolumetricTransformer(
            2, 3, features=(4,), channels=(4,), probabilistic=False, name="regressed"
        ),
        "separate": attn.VolumetricTransformer(
            None, 3, features=(4,), mix_channels=False, name="separate"
        ),
    }
    outputs = {"deformable": attn.DeformableConv2D(5, name="deformable")(x)}
    for name, warp in warps.items():
        outputs |= {f"{name}_{key}": value for key, value in warp(x).items()}
    return keras.Model(images, outputs, name="warps")


def _warped_classifier():
    backbone = {"features": (4,), "groups": 4, "window": 3}
    images = keras.Input((24, 24, 3), name="images")
    features = layers.Conv2D(8, 8, 8, name="stem")(images)
    warped = attn.VolumetricTransformer(name="deformation", **backbone)(features)
    pooled = POOLINGS["isqrt_cov"](name="pool")(warped["features"])
    outputs = {
        "logits": layers.Dense(CLASSES, name="logits")(pooled),
        "embedding": layers.UnitNormalization(name="embedding")(pooled),
        "fields": warped["fields"],
    }
    return keras.Model(images, outputs, name="warped_classifier")


def _masked_residual():
    images, pixels = _pixels()
    x = layers.Conv2D(4, 3, padding="same", name="branch")(pixels)
    shortcut = layers.Conv2D(4, 1, name="shortcut")(pixels)
    mask = layers.Conv2D(4, 1, activation="sigmoid", name="mask")(pixels)
    outputs = {
        target: attn.AttentionMaskedResidual(0.7, target, name=f"{target}_masked")(
            [x, shortcut, mask]
        )
        for target in ("shortcut", "branch", "literal")
    }
    return keras.Model(images, outputs, name="masked_residual")


def _dino_head():
    images, pixels = _pixels()
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 4, 4)(pixels))
    head = attn.DinoHead(8, 6, 4, learn_gain=True, name="head")
    return keras.Model(images, {"scores": head(x)}, name="dino_head")


def _self_attention():
    images, pixels = _pixels()
    tokens = layers.Reshape((-1, 8))(attn.PatchEmbedding(8, 4)(pixels))
    layer = attn.SelfAttention(2, name="self_attention")
    outputs = {
        "tokens": layer(tokens),
        "attention": layer(tokens, output="attention"),
        "class_attention": layer(tokens, output="class_attention"),
    }
    return keras.Model(images, outputs, name="self_attention")


def _network(name, size=None):
    images = keras.Input((*(size or (None, None)), 3), name="images")
    x = layers.Rescaling(1 / 128, -1)(images)
    x = layers.Conv2D(6, 3, 2, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    logits = layers.Dense(CLASSES, name="logits")(x)
    return draw_weights(keras.Model(images, {"logits": logits}, name=name))


def _patches():
    """Localisers, their patches, and classifiers that read them."""
    images = keras.Input((29, 31, 3), name="images")
    x = layers.Rescaling(1 / 128, -1)(images)
    x = layers.Conv2D(6, 5, 3, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    plain = draw_weights(keras.Model(images, layers.Dense(CLASSES)(x), name="plain"))
    localizer = as_localizer(plain, patch_size=11)
    selection = {"max_patches": 3, "iou_threshold": 0.3, "coverage": 0.5}
    small, patches = _network("small", (13, 11)), _network("patches")
    cropped = with_patches(localizer, **selection)
    windows = attn.CropPatches(11, name="crops")(
        [cropped.input, cropped.output["boxes"]]
    )
    rule = ExitRule(1.0, 0.5, [[-0.4, 1.0, 0.1, 0.0]] * 3)
    return {
        "localizer": localizer,
        "with_patches": cropped,
        "crop_patches": keras.Model(cropped.input, {"crops": windows}),
        "patch_classifier": patch_classifier(localizer, patches, **selection),
        "early_exit_policy": early_exit_classifier(
            localizer, small, patches, policy=rule, **selection
        ),
        "early_exit_thresholds": early_exit_classifier(
            localizer, small, patches, thresholds=[0.4, 0.5, 0.6], **selection
        ),
    }
