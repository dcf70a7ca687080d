"""Base class of methods that train a classifier with labels."""

import dataclasses
import pathlib

import keras

from keras_attn.pipelines.batches import build
from keras_attn.pipelines.files import digest_of
from keras_attn.preprocessing import spec_of
from keras_attn.training.methods.feeds.images import ImageFeed
from keras_attn.training.methods.optimizers import make_optimizer
from keras_attn.training.methods.protocol import Method
from keras_attn.training.runs import devices
from keras_attn.training.runs.run import model_file, read_model


class Classifier(Method):
    """Trains the output `logits` by cross-entropy on augmented whole images."""

    classifies = True
    next_commands = (
        "evaluate {run} {data}",
        "predict {run} IMAGE_OR_FOLDER",
        "explain {run} IMAGE_OR_FOLDER --output explained",
        "export {run}",
    )

    # Whether `initial` may name published weights.
    has_published_weights = False

    def check(self, recipe):
        initial = recipe.options.initial
        if recipe.options.published_weights and not self.has_published_weights:
            raise ValueError(
                f"Expected initial of a recipe of {recipe.method} to be the folder of "
                f"a run or a .keras file. Received: initial={initial!r}"
            )

    def losses(self, recipe, model):
        """The arguments `loss` and `loss_weights` of `compile`."""
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        return {"loss": {"logits": loss}}

    def make_optimizer(self, recipe, steps):
        """The recipe's optimizer; `steps` are those of the whole training."""
        return make_optimizer(recipe, steps)

    def start(self, recipe, model):
        options = recipe.options
        initial, names = options.initial, spec_of(model).class_names
        if options.published_weights:
            # `make_model` has loaded them.
            file = pathlib.Path(initial)
            return f"{initial}, {_digest(file)}" if file.is_file() else initial
        if not initial:
            return "random"
        file = model_file(initial)
        trained = read_model(file)
        others = _class_names(trained) not in ((), names)
        heads = self.class_weights(recipe, model) if others else ()
        count = len(model.weights)
        new = start_from(model, trained, file, heads)
        text = f"{initial}, {_digest(file)}, {count - new} of {count} weights"
        if heads:
            text += f", without the head of {len(_class_names(trained))} other classes"
        return text

    def class_weights(self, recipe, model):
        """Paths of the weights whose shape depends on the number of classes."""
        spec = spec_of(model)
        untrained = dataclasses.replace(recipe, options=recipe.options.untrained())
        wider = dataclasses.replace(spec, class_names=(*spec.class_names, "one more"))
        other = self.make_model(untrained, wider)
        return {
            weight.path
            for weight, wide in zip(model.weights, other.weights, strict=True)
            if weight.shape != wide.shape
        }

    def compile(self, model, recipe, steps):
        accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
        model.compile(
            self.make_optimizer(recipe, steps * recipe.epochs),
            **self.losses(recipe, model),
            metrics={"logits": accuracy},
            jit_compile=devices.compiles(recipe),
        )
        _make_metrics(model)

    def network_spec(self, recipe, spec):
        """The spec that the network normalises with; of published weights their own."""
        return spec

    def make_feed(self, recipe, splits, spec):
        return ImageFeed(recipe, splits, self.network_spec(recipe, spec))

    def label(self, model, batches):
        return build.label_outputs(batches, list(model.output))

    def watched(self, model):
        # Keras leaves the output's name out where there is but one.
        return "val_logits_accuracy" if len(model.output) > 1 else "val_accuracy"


def _make_metrics(model):
    """Makes all metrics; made in the first step, it is traced twice."""
    answers = {
        name: keras.ops.zeros([size or 1 for size in output.shape])
        for name, output in model.output.items()
    }
    label = keras.ops.zeros((1,), "int32")
    labels = dict.fromkeys(answers, label)
    model.compute_loss(y=labels, y_pred=answers)
    model.compute_metrics(None, labels, answers)
    model.reset_metrics()


def l2_of(recipe):
    """Coefficient of the penalty on kernels."""
    return recipe.weight_decay if recipe.options.weight_decay_mode == "l2" else 0.0


def start_from(model, trained, name, heads=()):
    """Gives a new model the weights of a trained one.

    The trained model has the same architecture, or layers that the new model has too,
    by their names: what the new model has beside them keeps its first values.

    Args:
        model: The new model.
        trained: The trained model.
        name: Its name in errors.
        heads: Paths of weights of the new model that keep their first values.

    Returns:
        Number of weights that keep their first values.

    Raises:
        ValueError: If a trained weight has no place in the model, or another shape.
    """
    ours, theirs = model.weights, trained.weights
    same = len(ours) == len(theirs) and all(
        weight.path in heads or weight.shape == other.shape
        for weight, other in zip(ours, theirs, strict=True)
    )
    places = {weight.path: weight for weight in ours}
    pairs = (
        list(zip(ours, theirs, strict=True))
        if same
        else [(places.get(weight.path), weight) for weight in theirs]
    )
    pairs = [(o, t) for o, t in pairs if o is None or o.path not in heads]
    for place, weight in pairs:
        if place is None or place.shape != weight.shape:
            raise ValueError(
                f"Expected a model of layers that {model.name!r} has too to start "
                f"from. Received: {name} with {weight.path} of shape "
                f"{tuple(weight.shape)}"
            )
    for place, weight in pairs:
        place.assign(weight)
    return len(ours) - len(pairs)


def _class_names(model):
    """Class names that a model of this project carries."""
    try:
        return spec_of(model).class_names
    except ValueError:
        return ()


def _digest(file):
    return f"SHA-256 {digest_of(pathlib.Path(file))[:16]}"
