"""Attention-masked residuals: two-branch ResNets that get an image and its map."""

import dataclasses
import difflib

import keras
from keras import layers, ops

from keras_attn.models.masked_resnet import masked_resnet
from keras_attn.preprocessing import ImagePreprocessing, spec_of
from training.map_feed import (
    MAP_MODEL,
    MapFeed,
    load_map_model,
    network_size,
    reads_maps,
)

# Depth and kind of block.
BACKBONES = {
    **{f"resnet{depth}": (depth, "basic") for depth in (8, 14, 20, 32, 44, 56, 110)},
    "bottleneck14": (14, "bottleneck"),
    "bottleneck26": (26, "bottleneck"),
    "resnet50": (50, "bottleneck"),
    "resnet101": (101, "bottleneck"),
    "resnet152": (152, "bottleneck"),
}


def make_model(recipe, spec):
    size = network_size(recipe)
    if size != recipe.image_size:
        # As the maps' images are enlarged, see `pipelines.compute_maps.fitted`.
        spec = dataclasses.replace(
            spec, height=size, width=size, interpolation="bicubic"
        )
    images = keras.Input((size, size, 3), name="images")
    if recipe.map_mode == "end_to_end" and reads_maps(recipe):
        return _with_map(recipe, spec, images, load_map_model(recipe.map_model))
    return _network(recipe, spec, images)


def _with_map(recipe, spec, images, map_model):
    """The recipe's network with the map computed inside, and among its outputs."""
    attention_map = map_model(images)
    network = _network(recipe, spec, images, attention_map)
    outputs = {**network.output, "attention_map": attention_map}
    return keras.Model(network.input, outputs, name=network.name)


def _network(recipe, spec, images, attention_map=None):
    """The recipe's network on raw pixels, with a map or an input for it."""
    if recipe.backbone not in BACKBONES:
        nearest = difflib.get_close_matches(recipe.backbone, BACKBONES, 1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(
            f"Expected the backbone of recipe {recipe.name!r} to be one of "
            f"{tuple(BACKBONES)}. Received: backbone={recipe.backbone!r}.{hint}"
        )
    depth, block = BACKBONES[recipe.backbone]
    plain = recipe.mask_target == "none"
    return masked_resnet(
        depth,
        num_classes=len(spec.class_names),
        stem=recipe.stem,
        block=block,
        strength=None if plain else recipe.mask_strength,
        target="shortcut" if plain else recipe.mask_target,
        control=recipe.mask_control,
        weight_decay=recipe.weight_decay if recipe.weight_decay_mode == "l2" else 0.0,
        input_tensor=ImagePreprocessing(spec, name="preprocessing")(images),
        map_tensor=attention_map,
    )


def losses(recipe, model):
    # The sum in the paper's equation (5) leaves out the true class, which leaves the
    # loss without a lower bound; this is the usual cross-entropy.
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return {"loss": {"logits": loss}}


def make_feed(recipe, splits):
    return MapFeed(recipe, splits)


def serving_model(model, run):
    """From images of any size alone, with the map computed inside.

    Outputs are the logits, the masks, and `attention_map` where there is a generator.
    """
    recipe, size = run.recipe, network_size(run.recipe)
    if recipe.map_mode == "end_to_end" and reads_maps(recipe):
        return model
    images = keras.Input((None, None, 3), name="images")
    # In 8 bit, as images are fitted before their maps are computed and cached. Keras's
    # default, `training=True`, would go on to the layers behind.
    fitted = layers.Resizing(
        size,
        size,
        interpolation=spec_of(model).interpolation,
        crop_to_aspect_ratio=True,
        antialias=True,
        dtype="uint8",
        name="fitted",
    )(images, training=False)
    if reads_maps(recipe):
        map_model = load_map_model(run.checkpoints / MAP_MODEL)
        served = _with_map(recipe, spec_of(model), fitted, map_model)
    else:
        zeros = ops.zeros_like(fitted[..., :1], dtype="float32")
        served = _network(recipe, spec_of(model), fitted, zeros)
    for layer in model.layers:
        if layer.weights:
            served.get_layer(layer.name).set_weights(layer.get_weights())
    return served
