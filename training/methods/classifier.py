"""Base class of methods that train a classifier with labels."""

import keras

from keras_attn.pipelines.batches import build
from keras_attn.training.methods.feeds.images import ImageFeed
from keras_attn.training.methods.optimizers import make_optimizer
from keras_attn.training.methods.protocol import Method
from keras_attn.training.runs.outputs import model_file, read_model


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
        # Published weights are loaded by `make_model`.
        if options.initial and not options.published_weights:
            new = start_from(model, options.initial)
            count = len(model.weights)
            return options.initial + (f", {new} of {count} weights are new" * bool(new))
        return options.initial or "random"

    def compile(self, model, recipe, steps):
        accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
        model.compile(
            self.make_optimizer(recipe, steps * recipe.epochs),
            **self.losses(recipe, model),
            metrics={"logits": accuracy},
            jit_compile=recipe.jit_compile,
        )

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


def l2_of(recipe):
    """Coefficient of the penalty on kernels."""
    return recipe.weight_decay if recipe.options.weight_decay_mode == "l2" else 0.0


def start_from(model, path):
    """Gives a new model the weights of a trained one.

    The trained model has the same architecture, or layers that the new model has too,
    by their names: what the new model has beside them keeps its first values.

    Args:
        model: The new model.
        path: Folder of a run, of which the best model is taken, or a `.keras` file.

    Returns:
        Number of weights that keep their first values.

    Raises:
        ValueError: If a trained weight has no place in the model, or another shape.
    """
    trained = read_model(model_file(path))
    shapes = [[tuple(w.shape) for w in m.weights] for m in (trained, model)]
    if shapes[0] == shapes[1]:
        model.set_weights(trained.get_weights())
        return 0
    places = {weight.path: weight for weight in model.weights}
    for weight in trained.weights:
        place = places.get(weight.path)
        if place is None or place.shape != weight.shape:
            raise ValueError(
                f"Expected a model of layers that {model.name!r} has too to start "
                f"from. Received: {path} with {weight.path} of shape "
                f"{tuple(weight.shape)}"
            )
    for weight in trained.weights:
        places[weight.path].assign(weight)
    return len(places) - len(trained.weights)
