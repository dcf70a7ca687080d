"""Fine-tuning: a trained classifier of anybody's, a new head, and blocks by name."""

import contextlib
import dataclasses
import functools
import pathlib

import keras

from keras_attn import insert
from keras_attn._checks import one_of
from keras_attn.layers import get_block, list_blocks
from keras_attn.losses.patch_crossentropy import PatchCrossentropy
from keras_attn.models.new_head import (
    freeze_statistics,
    known_pooling,
    with_new_head,
)
from keras_attn.pipelines.batches import build
from keras_attn.pipelines.files import digest_of
from keras_attn.preprocessing import ImageSpec, spec_of
from keras_attn.training.adoption import ModelSource, adopted
from keras_attn.training.methods.classifier import Classifier
from keras_attn.training.methods.frozen_part import FrozenPart, Passes, fit_linear

# Images in a step of the passes that train new blocks.
BATCH = 32
GIB = 2**30
# Share of the steps in which the rate of all layers rises: Adam's first steps are its
# largest, and would undo what was learned before.
WARM_UP = 0.1


class Finetune(Classifier):
    """First what is new on the features of the frozen rest, then everything."""

    next_commands = (
        "evaluate {run} {data}",
        "report {run} {data}",
        "explain {run} {image} --output explained",
        "export {run}",
        "serve saved_models",
    )
    # Key and features of the last frozen part: rows and seeds of a comparison share it.
    kept = None

    def check(self, recipe):
        if not recipe.options.model:
            raise ValueError(
                "Expected the model to start from (--from MODEL, or --set "
                "model=MODEL). Received: none"
            )
        known_pooling(recipe.options.pooling)
        for name, _ in recipe.options.placed:
            one_of("block", name, list_blocks())
        if any(place for _, place in recipe.options.placed):
            # Places are layers of the model: refused before images are read.
            side = recipe.image_size
            self.make_model(recipe, ImageSpec(side, side, class_names=("0", "1")))

    def make_model(self, recipe, spec):
        options = recipe.options
        trained = trained_model(options)
        spec = self.network_spec(recipe, spec)
        head = with_new_head(trained, spec, options.pooling, options.dropout)
        model = head.model
        # Each goes right behind its place: of several the first one last.
        for name, place in reversed(options.placed):
            at = place or head.last_map
            if at is None:
                raise ValueError(
                    f"Expected the place of block {name!r} in a network without a map "
                    f"in front of its head, {name}@LAYER. Received: {name}"
                )
            at = _own_name(at, head.model)
            model = insert(model, at, name, **_arguments(name, spec))
        old = {layer.name for layer in head.model.layers} - {*head.layers}
        # For the first epoch; a saved model does without.
        model.new_layers = tuple(
            layer.name for layer in model.layers if layer.name not in old
        )
        freeze_statistics(model, model.new_layers)
        return model

    def start(self, recipe, model):
        origin = named_origin(recipe.options.model)
        return f"{origin}, with new {', '.join(model.new_layers)}"

    def network_spec(self, recipe, spec):
        own = trained_spec(recipe.options)
        return dataclasses.replace(spec, mean=own.mean, std=own.std)

    def losses(self, recipe, model):
        options = recipe.options
        weight = options.patch_loss_weight if "patch_logits" in model.output else 0
        loss = PatchCrossentropy(options.label_smoothing, name="crossentropy")
        found = {"loss": {"logits": loss}}
        if weight:
            found["loss"]["patch_logits"] = PatchCrossentropy(options.label_smoothing)
            found["loss_weights"] = {"logits": 1 - weight, "patch_logits": weight}
        return found

    def make_optimizer(self, recipe, steps):
        # The first epoch has an optimizer of its own.
        steps = steps * max(1, recipe.epochs - 1) // recipe.epochs
        return adamw(recipe, recipe.learning_rate, steps, WARM_UP)

    def first_epoch(self, recipe, model, splits):
        options, labels = recipe.options, splits["train"][1]
        part = FrozenPart(model, model.new_layers)
        size = part.size(len(labels)) / GIB
        if size > recipe.in_memory:
            print(
                f"The features in front of new layers take {size:.1f} GiB, more than "
                f"in_memory={recipe.in_memory:g}: the first epoch trains the head only."
            )
            part = FrozenPart(model, ("logits",))
        features = self._features(recipe, part, splits)

        def fit_head():
            head = model.get_layer("logits")
            vectors = part.vectors.predict(features, BATCH, verbose=0)
            steps, seed = options.head_steps, recipe.seed
            head.set_weights(fit_linear(vectors, labels, head.units, steps, seed))

        fit_head()
        rest, targets = part.rest, dict.fromkeys(model.output, labels)
        with _only(rest, model.new_layers):
            # Kernel and bias of the head are there already.
            epochs = options.new_epochs * (len(rest.trainable_weights) > 2)
            steps = epochs * -(-len(labels) // BATCH)
            rest.compile(
                adamw(recipe, options.new_rate, max(1, steps)),
                **self.losses(recipe, model),
                metrics={"logits": keras.metrics.SparseCategoricalAccuracy("accuracy")},
            )
            if epochs:
                shown = [Passes(epochs)]
                rest.fit(features, targets, BATCH, epochs, verbose=0, callbacks=shown)
                # With the decay that suits these images, as without blocks.
                fit_head()
        return rest.evaluate(features, targets, BATCH, verbose=0, return_dict=True)

    def _features(self, recipe, part, splits):
        """The features of the training images, kept for the next run with the same."""
        options = recipe.options
        key = options.model, options.pixels, options.output, recipe.image_size
        key += part.places, build.checksum({"train": splits["train"]})
        if self.kept is None or self.kept[0] != key:
            self.kept = key, part.features(*splits["train"])
        return self.kept[1]

    def patience(self, recipe):
        return recipe.options.patience


def named_origin(origin):
    """The model to start from, and the digest of its file."""
    if pathlib.Path(origin).is_file():
        origin += f", SHA-256 {digest_of(pathlib.Path(origin))[:16]}"
    return origin


def trained_model(options):
    """The trained classifier that an options block names."""
    source = ModelSource(
        options.model, pixels=options.pixels or None, output=options.output or None
    )
    return adopted(source)[0]


@functools.cache
def trained_spec(options):
    """The `ImageSpec` of the trained classifier."""
    return spec_of(trained_model(options))


def _own_name(place, model):
    """The name of a layer of a nested model, as in `places`, in one without such."""
    names = {layer.name for layer in model.layers}
    last = place.rpartition("/")[2]
    return last if place not in names and last in names else place


def _arguments(block, spec):
    """The arguments that a block needs to be made by its name."""
    try:
        get_block(block)
    except ValueError:
        # Those that know classes; of an unknown name `insert` reports an error.
        return {"num_classes": len(spec.class_names)}
    return {}


def adamw(recipe, rate, steps, warm_up=0.0):
    """AdamW whose rate rises in a share of its steps and falls to zero."""
    rising = round(warm_up * steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        *((0.0, steps - rising) if rising else (rate, steps)),
        warmup_target=rate if rising else None,
        warmup_steps=rising,
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=recipe.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma", "scale"])
    return optimizer


@contextlib.contextmanager
def _only(model, names):
    """Context in which only the layers of these names train."""
    before = {layer: layer.trainable for layer in model.layers}
    for layer in before:
        layer.trainable = before[layer] and layer.name in names
    try:
        yield
    finally:
        for layer, trainable in before.items():
            layer.trainable = trainable


METHOD = Finetune()
