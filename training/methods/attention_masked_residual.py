"""Attention-masked residuals: two-branch ResNets that get an image and its map."""

import dataclasses

import keras
import numpy as np
from keras import layers, ops

from keras_attn._checks import one_of
from keras_attn.models.catalogue import list_models, network
from keras_attn.preprocessing import ImagePreprocessing, spec_of
from keras_attn.training.methods.feeds.attention_maps import (
    MAP_MODEL,
    MapFeed,
    check_map_model,
    network_size,
    reads_maps,
    reads_true_maps,
)
from keras_attn.training.runs.map_model import load_map_model

# Recipes leave out this start of the names in the table of networks.
PREFIX = "masked_"
BACKBONES = tuple(name.removeprefix(PREFIX) for name in list_models(role="masked"))
CONTROL_INPUTS = ("images", "map_images")


def make_model(recipe, spec):
    size = network_size(recipe)
    if size != recipe.image_size:
        # As the maps' images are enlarged, see
        # `keras_attn.pipelines.attention_maps.compute.fitted`.
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
    one_of("backbone", recipe.backbone, BACKBONES)
    build = network(PREFIX + recipe.backbone, "masked").builder
    plain = recipe.mask_target == "none"
    return build(
        num_classes=len(spec.class_names),
        stem=recipe.stem,
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


def check(recipe):
    check_map_model(recipe)


def make_feed(recipe, splits, spec):
    return MapFeed(recipe, splits, spec)


def serving_model(model, run):
    """From images of any size alone, with the map computed inside.

    Outputs are the logits, the masks, and `attention_map` where there is a generator.

    Raises:
        ValueError: If the network takes the true maps of objects, which no image has by
            itself.
    """
    recipe, spec = run.recipe, spec_of(model)
    if reads_true_maps(recipe):
        raise ValueError(
            "Expected a run whose maps can be made of an image. Received: "
            f"{run.workdir}, trained with map_mode={recipe.map_mode}, what is known of "
            f"the objects in {recipe.dataset}. `keras-attn reproduce` judges such runs."
        )
    end_to_end = recipe.map_mode == "end_to_end" and reads_maps(recipe)
    if end_to_end and network_size(recipe) == recipe.image_size:
        return model
    images = keras.Input((None, None, 3), name="images")
    fitted = _fitting(spec)(images, training=False)
    if reads_maps(recipe):
        file = run.checkpoints / MAP_MODEL
        map_model = _map_model(model) if end_to_end else load_map_model(file)
        served = _with_map(recipe, spec, fitted, map_model)
    else:
        zeros = ops.zeros_like(fitted[..., :1], dtype="float32")
        served = _network(recipe, spec, fitted, zeros)
    _copy_weights(model.layers, model, served)
    return served


def fed_logits(run, images, labels):
    """Of a run with the true maps of objects, which is no model of images alone.

    Args:
        run: `Run`.
        images, labels: Of its data set.

    Returns:
        `(logits, labels)` of the last epoch's model, both in the order of its
        validation; `None` for a run that can be served.
    """
    if not reads_true_maps(run.recipe):
        return None
    model = run.load_model("last")
    splits = {"train": (images[:0], labels[:0]), "validation": (images, labels)}
    batches = make_feed(run.recipe, splits, spec_of(model)).validation()
    found = [
        (ops.convert_to_numpy(model(pair, training=False)["logits"]), given)
        for pair, given in batches
    ]
    return tuple(np.concatenate(each) for each in zip(*found, strict=True))


def control_model(model, run):
    """What a run with the maps of other images is evaluated as; `None` for all else.

    Its served model gives an image the map of the image before in the batch, which in
    a data set is mostly one of the same class. This model is told whose: it takes
    `map_images` beside `images`.

    Args:
        model: As served.
        run: `Run`.
    """
    recipe, spec = run.recipe, spec_of(model)
    if recipe.mask_control != "shuffled" or not reads_maps(recipe):
        return None
    inputs = {name: keras.Input((None, None, 3), name=name) for name in CONTROL_INPUTS}
    fitting = _fitting(spec)
    images, others = (fitting(each, training=False) for each in inputs.values())
    maps = _map_model(model)(others)
    network = _network(
        dataclasses.replace(recipe, mask_control="none"),
        spec,
        keras.Input(images.shape[1:], name="images"),
        keras.Input(maps.shape[1:], name="attention_map"),
    )
    _copy_weights(network.layers, model, network)
    outputs = network({"images": images, "attention_map": maps})
    return keras.Model(inputs, outputs, name=network.name)


def _fitting(spec):
    """The layer that brings images to the network's size.

    In 8 bit, as images are fitted before their maps are computed and cached. To be
    called with `training=False`: Keras's default would go on to the layers behind.
    """
    return layers.Resizing(
        spec.height,
        spec.width,
        interpolation=spec.interpolation,
        crop_to_aspect_ratio=True,
        antialias=True,
        dtype="uint8",
        name="fitted",
    )


def _map_model(model):
    (found,) = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    return found


def _copy_weights(chosen, source, target):
    """From layers of one model to those of the same names of another."""
    for name in (layer.name for layer in chosen if layer.weights):
        target.get_layer(name).set_weights(source.get_layer(name).get_weights())
