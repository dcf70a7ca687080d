"""Signatures of an exported model: one function each.

- `serving_default`, from encoded files, and `image`, from raw pixels: the decision and
  the small outputs;
- `explain`, from encoded files: all maps that a model can show, and for a classifier
  the `map` of Grad-CAM for the best class and the `box` around its largest region;
- `explain_class`, from encoded files and the numbers of classes, -1 for the best one:
  that `map` and `box`;
- `embed`, from encoded files: the vector that finds similar images.
"""

import dataclasses
import functools
from collections.abc import Callable

import keras
import numpy as np

from keras_attn.explain.compiled import compiled_grad_cam
from keras_attn.layers.patch_embedding import PatchEmbedding
from keras_attn.models.vit import attention_map_model
from keras_attn.ops.boxes import heat_map_box
from keras_attn.training.explain.localizers import (
    chooses_patches,
    has_evidence,
    localizer_of,
)
from keras_attn.training.retrieval.descriptors import can_embed, embedder_of
from keras_attn.training.runs.outputs import with_outputs

# The signature that takes pixels; all others take encoded files.
PIXELS = "image"
INPUTS = {True: "images", False: "image_bytes"}
LABEL = "label"
# Outputs that are texts, which only a SavedModel has.
TEXTS = ("class", "labels")
# Images that a model is tried on.
EXAMPLES = 4

# Outputs that have a signature of their own, or that none needs.
_NOT_SHOWN = ("embedding", "tokens")


@dataclasses.dataclass(frozen=True)
class ServedAnswer:
    """The function of one signature.

    Args:
        function: From float32 images `(batch, height, width, 3)`, raw pixels of the
            model's size, to a dict of named tensors.
        networks: Keras models that it calls.
        labelled: Whether it takes the numbers of classes, `LABEL`, after the images.
    """

    function: Callable
    networks: tuple
    labelled: bool = False

    @functools.cached_property
    def of_best(self):
        """Its function of images alone, for the best class."""
        import tensorflow as tf

        if not self.labelled:
            return self.function
        best = lambda images: tf.fill(tf.shape(images)[:1], -1)  # noqa: E731
        return lambda images: self.function(images, best(images))


def input_of(signature):
    """The name of a signature's input."""
    return INPUTS[signature == PIXELS]


def example_images(spec):
    """Blurred noise, 8-bit; sharp noise is too far from the images of a training."""
    import tensorflow as tf

    coarse = np.random.default_rng(0).integers(0, 256, (EXAMPLES, 5, 7, 3))
    images = tf.image.resize(coarse, (spec.height, spec.width))
    return tf.cast(tf.round(images), tf.uint8)


def answers_of(trained, model):
    """The signatures of a trained model.

    Args:
        trained: `Trained`.
        model: Its model; for a localiser with its patches.

    Returns:
        Dict from names to `ServedAnswer`. `explain` is missing where there is nothing
        to show, `explain_class` where Grad-CAM has no map, and `embed` where the model
        has no vector that describes an image.
    """
    classes = trained.class_names
    # Of labels that do not exclude each other.
    thresholds = trained.thresholds if trained.several_labels else None
    decides = _decision(model, classes, thresholds)
    answers = {"serving_default": decides, PIXELS: decides}
    grad_cam = _grad_cam(trained, model)
    if shown := _explanation(model, classes, thresholds, grad_cam):
        answers["explain"] = shown
    if grad_cam:
        answers["explain_class"] = grad_cam
    if can_embed(trained.model):
        embedder = embedder_of(trained)
        answers["embed"] = ServedAnswer(
            lambda images: {"descriptor": embedder(images, training=False)}, (embedder,)
        )
    return answers


def _decision(model, class_names, thresholds):
    network = with_outputs(model, light_outputs(model))

    def decide(images):
        outputs = dict(network(images, training=False))
        return with_decision(outputs, class_names, thresholds)

    return ServedAnswer(_traced_once(decide), (network,))


def _traced_once(function):
    """The function, which signatures share as one graph; step by step outside."""
    import tensorflow as tf

    traced = tf.function(function, autograph=False)
    return lambda *given: (traced if tf.inside_function() else function)(*given)


def light_outputs(model):
    """Names of the outputs that are neither maps nor those of a single branch.

    A model that does not classify answers with its embedding.
    """
    if "logits" not in model.output:
        return ["embedding"]
    return [
        name
        for name, value in model.output.items()
        if len(value.shape) <= 3
        and name not in _NOT_SHOWN
        and not name.startswith("logits_")
    ]


def with_decision(outputs, class_names, thresholds=None):
    """Outputs with `probabilities` and `class`, where there are logits.

    With thresholds also `labels`, the names of those from theirs on, as `cat;dog`.
    """
    import tensorflow as tf

    if "logits" not in outputs:
        return outputs
    label = tf.argmax(tf.cast(outputs["logits"], tf.float32), axis=-1)
    found = with_probabilities(outputs)
    found["class"] = tf.gather(tf.constant(class_names), label)
    if thresholds is not None:
        named = found["probabilities"] >= tf.constant(thresholds, tf.float32)
        names = [f"{name};" for name in class_names]
        joined = tf.strings.reduce_join(tf.where(named, names, ""), axis=-1)
        found["labels"] = tf.strings.regex_replace(joined, ";$", "")
    return found


def with_probabilities(outputs):
    """Outputs with `probabilities` in float32, a model's own before the softmax."""
    import tensorflow as tf

    if "logits" not in outputs:
        return outputs
    if "probabilities" in outputs:
        found = tf.cast(outputs["probabilities"], tf.float32)
    else:
        found = tf.nn.softmax(tf.cast(outputs["logits"], tf.float32))
    return {**outputs, "probabilities": found}


def _grad_cam(trained, model):
    """The `ServedAnswer` with the Grad-CAM of some classes, or `None`.

    Where no gradient reaches the map, as behind the choice of patches, there is none.
    """
    import tensorflow as tf

    def explain(images, label):
        found = compiled_grad_cam(model, images, label)
        names = tf.constant(trained.class_names)
        label = tf.clip_by_value(found.pop("label"), 0, len(trained.class_names) - 1)
        box = heat_map_box(found["map"])
        return {**found, "box": box, "class": tf.gather(names, label)}

    if "logits" not in model.output:
        return None
    images = tf.cast(example_images(trained.spec), tf.float32)
    try:
        found = explain(images, tf.fill((len(images),), -1))
    except (ValueError, NotImplementedError):
        return None
    if not np.any(found["map"]):
        return None
    return ServedAnswer(_traced_once(explain), (model,), True)


def _explanation(model, class_names, thresholds, grad_cam):
    """The `ServedAnswer` with all that a model shows, or `None`."""

    shown = [name for name in model.output if name not in _NOT_SHOWN]
    networks = [with_outputs(model, shown)] if shown else []
    if chooses_patches(model) and not has_evidence(model):
        networks.append(_evidence_model(localizer_of(model)))
    if _is_transformer(model):
        for name, aggregate in (("attention_map", "mean"), ("attention_heads", None)):
            normalize = "minmax" if aggregate else None
            found = attention_map_model(model, aggregate, normalize, name=name)
            networks.append(keras.Model(found.input, {name: found.output}, name=name))
    if not grad_cam and not any(
        set(each.output) - set(light_outputs(model)) for each in networks
    ):
        return None

    def explain(images):
        outputs = {}
        for network in networks:
            outputs |= network(images, training=False)
        outputs = with_decision(_readable(outputs), class_names, thresholds)
        if grad_cam:
            found = grad_cam.of_best(images)
            outputs |= {"map": found["map"], "box": found["box"]}
        return outputs

    return ServedAnswer(explain, (*networks, model) if grad_cam else tuple(networks))


def _evidence_model(localizer):
    names = [
        name
        for name in localizer.output
        if name.startswith(("evidence_", "attention_", "logits_"))
    ]
    return with_outputs(localizer, names)


def _is_transformer(model):
    """Tests whether `attention_map_model` takes a model."""
    embeds = any(isinstance(layer, PatchEmbedding) for layer in model.layers)
    return embeds and "tokens" in model.output


def _readable(outputs):
    """Masks as the mean of their channels, and patch logits also as probabilities."""
    import tensorflow as tf

    found = {
        name: tf.reduce_mean(value, axis=-1, keepdims=True)
        if name.startswith("mask_")
        else value
        for name, value in outputs.items()
    }
    if "patch_logits" in found:
        cells = tf.cast(found["patch_logits"], tf.float32)
        found["class_maps"] = tf.nn.softmax(cells)
    return found
