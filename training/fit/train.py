"""Recipe and data -> trained model in a run folder."""

import sys

import keras

from keras_attn.pipelines.batches import build
from keras_attn.pipelines.images.streaming import clear_errors
from keras_attn.training import methods
from keras_attn.training.data.load import load_data
from keras_attn.training.fit import callbacks
from keras_attn.training.fit.optimizers import make_optimizer
from keras_attn.training.methods import method_of
from keras_attn.training.runs import devices
from keras_attn.training.runs.card import write_card
from keras_attn.training.runs.outputs import model_file, read_model
from keras_attn.training.runs.run import Run
from keras_attn.training.runs.state import load_progress, restore_state


def make_model(recipe, spec):
    """The recipe's network, un-trained: raw 8-bit pixels in, named outputs out."""
    return method_of(recipe).make_model(recipe, spec)


def compile_model(model, recipe, steps):
    """Compiles with the recipe's loss and optimizer, and accuracy on the logits."""
    model.compile(
        make_optimizer(recipe, steps),
        **method_of(recipe).losses(recipe, model),
        metrics={"logits": keras.metrics.SparseCategoricalAccuracy(name="accuracy")},
        jit_compile=recipe.jit_compile,
    )


def train(recipe, workdir, data=None, source=None, on_corrupt="error", verbose=None):
    """Trains a recipe in a run folder, or goes on where that run stopped.

    The folder is made when data and model are known to be fit, so a mistake in the
    command leaves nothing behind.

    Args:
        recipe: `Recipe`.
        workdir: Folder of the run; made if it does not exist.
        data, source, on_corrupt: As in `load_data`.
        verbose: As in `fit`; `None`: a bar on a terminal, else a line an epoch.

    Returns:
        The `Run`.

    Raises:
        ValueError: If the folder belongs to another recipe or to other data, or the
            data is unfit.
        NotFiniteError: If the loss becomes NaN or infinite.
        SaveError: If a checkpoint cannot be written.
    """
    run = Run.check(workdir, recipe)
    state = run.checkpoints / "last.npz"
    progress = load_progress(state)
    if progress.epochs >= recipe.epochs:
        print(f"{run.workdir} is finished: {progress.epochs} epochs.")
        return run
    devices.check_recipe(recipe)
    methods.check(recipe)
    spec, splits = load_data(recipe, data, source, on_corrupt)
    check_same_data(run, progress, splits)
    feed = method_of(recipe).make_feed(recipe, splits, spec)
    model = trainable_model(recipe, spec, feed.steps)
    start = progress.epochs
    if start:
        restore_state(state, model)
        print(f"Resuming {run.workdir} after epoch {start} of {recipe.epochs}.")
    outputs = list(model.output)
    training = build.label_outputs(feed.training(start), outputs)
    validation = feed.validation()
    if validation is not None:
        validation = build.label_outputs(validation, outputs)
    Run.create(workdir, recipe)
    feed.save(run)
    if verbose is None:
        verbose = 1 if sys.stdout.isatty() else 2
    try:
        with clear_errors():
            model.fit(
                training,
                validation_data=validation,
                initial_epoch=start,
                epochs=recipe.epochs,
                steps_per_epoch=feed.steps,
                shuffle=False,
                verbose=verbose,
                callbacks=[
                    callbacks.StopAtNotFinite(run, progress),
                    callbacks.Checkpoint(run, progress, _watched(model, validation)),
                    callbacks.EventFiles(run),
                ],
            )
    except KeyboardInterrupt:
        done = load_progress(state).epochs
        print(
            f"\nInterrupted {run.workdir} after epoch {done} of {recipe.epochs}. The "
            "same command goes on from there."
        )
        raise
    write_card(run, spec)
    return run


def trainable_model(recipe, spec, steps):
    """The recipe's compiled model and built optimizer, before the first step."""
    keras.utils.set_random_seed(recipe.seed)
    if recipe.deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    with devices.scope(), dtype_policy(recipe.dtype_policy):
        model = make_model(recipe, spec)
        print(f"Initial weights: {recipe.initial or 'random'}")
        # Published weights are the method's to load.
        if recipe.initial and not recipe.published_weights:
            start_from(model, recipe.initial)
        devices.synchronize(model, devices.device_count() > 1)
        compile_model(model, recipe, steps * recipe.epochs)
        model.optimizer.build(model.trainable_variables)
    return model


def start_from(model, path):
    """Gives a new model the weights of a trained one.

    Of the same architecture, or of one whose layers the new model has too, by their
    names: what the new model has beside them keeps its first values.

    Args:
        model: The new model.
        path: Folder of a run, of which the best model is taken, or a `.keras` file.

    Raises:
        ValueError: If a trained weight has no place in the model, or another shape.
    """
    trained = read_model(model_file(path))
    shapes = [[tuple(w.shape) for w in m.weights] for m in (trained, model)]
    if shapes[0] == shapes[1]:
        model.set_weights(trained.get_weights())
        return
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
    new = len(places) - len(trained.weights)
    print(f"{new} of {len(places)} weights are new.")


def _watched(model, validation):
    if validation is None:
        return None
    # Keras leaves the output's name out where there is but one.
    return "val_logits_accuracy" if len(model.output) > 1 else "val_accuracy"


def check_same_data(run, progress, splits):
    known = progress.data
    if progress.epochs and known and not build.is_checksum_of(known, splits):
        raise ValueError(
            f"Expected the data that {run.workdir} was trained on so far. Received: "
            "other images, labels or order. Choose another --workdir."
        )
    progress.data = build.checksum(splits)


class dtype_policy:
    """Context in which layers are made with a dtype policy."""

    def __init__(self, name):
        self.name = name

    def __enter__(self):
        self.previous = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self.name)

    def __exit__(self, *error):
        keras.config.set_dtype_policy(self.previous)
