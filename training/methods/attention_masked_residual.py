"""Attention-masked residuals: two-branch ResNets that get an image and its map."""

import dataclasses

import keras
import numpy as np
from keras import layers, ops

from keras_attn._checks import one_of
from keras_attn.models.catalogue import list_models, network
from keras_attn.preprocessing import ImagePreprocessing, spec_of
from keras_attn.training.methods.classifier import Classifier, l2_of
from keras_attn.training.methods.feeds.attention_maps import (
    MAP_MODEL,
    MapFeed,
    check_map_model,
    network_size,
    reads_maps,
    reads_true_maps,
)
from keras_attn.training.runs.map_model import load_map_model, named_heads

# Recipes leave out this start of the names in the table of networks.
PREFIX = "masked_"
BACKBONES = tuple(name.removeprefix(PREFIX) for name in list_models(role="masked"))
CONTROL_INPUTS = ("images", "map_images")


class AttentionMaskedResidual(Classifier):
    # Cross-entropy: the sum in the paper's equation (5) leaves out the true class,
    # which leaves the loss without a lower bound.

    def check(self, recipe):
        super().check(recipe)
        check_map_model(recipe)

    def make_model(self, recipe, spec):
        options, size = recipe.options, network_size(recipe)
        if size != recipe.image_size:
            # As the maps' images are enlarged, see
            # `keras_attn.pipelines.attention_maps.compute.fitted`.
            spec = dataclasses.replace(
                spec, height=size, width=size, interpolation="bicubic"
            )
        images = keras.Input((size, size, 3), name="images")
        if options.map_mode == "end_to_end" and reads_maps(recipe):
            map_model = load_map_model(
                options.map_model, named_heads(options.map_heads)
            )
            return _with_map(recipe, spec, images, map_model)
        return _network(recipe, spec, images)

    def make_feed(self, recipe, splits, spec):
        return MapFeed(recipe, splits, spec)

    def serving_model(self, model, run):
        """From images of any size alone, with the map computed inside.

        Outputs are the logits, the masks, and `attention_map` where there is a
        generator.

        Raises:
            ValueError: If the network takes the true maps of objects, which no image
                has by itself.
        """
        recipe, spec = run.recipe, spec_of(model)
        if reads_true_maps(recipe):
            raise ValueError(
                "Expected a run whose maps can be made of an image. Received: "
                f"{run.workdir}, trained with map_mode={recipe.options.map_mode}, the "
                f"known objects of {recipe.dataset}. `keras-attn reproduce` measures "
                "such runs."
            )
        end_to_end = recipe.options.map_mode == "end_to_end" and reads_maps(recipe)
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

    def fed_logits(self, run, images, labels):
        """See `Method`; of a run with the true maps of objects.

        Its model is that of the last epoch, and the order that of its validation.
        """
        if not reads_true_maps(run.recipe):
            return None
        model = run.load_model("last")
        splits = {"train": (images[:0], labels[:0]), "validation": (images, labels)}
        batches = self.make_feed(run.recipe, splits, spec_of(model)).validation()
        found = [
            (ops.convert_to_numpy(model(pair, training=False)["logits"]), given)
            for pair, given in batches
        ]
        return tuple(np.concatenate(each) for each in zip(*found, strict=True))

    def control_model(self, model, run):
        """See `Method`; of a run with the maps of other images.

        Its served model gives an image the map of the image before in the batch, which
        in a data set is mostly one of the same class. This model takes the image that
        the map is of, `map_images`, beside `images`.
        """
        recipe, spec = run.recipe, spec_of(model)
        if recipe.options.mask_control != "shuffled" or not reads_maps(recipe):
            return None
        inputs = {
            name: keras.Input((None, None, 3), name=name) for name in CONTROL_INPUTS
        }
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
    options = recipe.options
    plain = options.mask_target == "none"
    return build(
        num_classes=len(spec.class_names),
        stem=options.stem,
        strength=None if plain else options.mask_strength,
        target="shortcut" if plain else options.mask_target,
        control=options.mask_control,
        weight_decay=l2_of(recipe),
        input_tensor=ImagePreprocessing(spec, name="preprocessing")(images),
        map_tensor=attention_map,
    )


def _fitting(spec):
    """The layer that brings images to the network's size.

    In 8 bit, as images are fitted before their maps are computed and cached. To be
    called with `training=False`: Keras would pass its default on to the layers behind.
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
    """Copies weights from layers of one model to those of the same names of another."""
    for name in (layer.name for layer in chosen if layer.weights):
        target.get_layer(name).set_weights(source.get_layer(name).get_weights())


METHOD = AttentionMaskedResidual()
