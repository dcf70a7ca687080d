"""Recipe and data -> trained model in a run folder."""

import sys

import keras

from keras_attn.preprocessing import ImageSpec
from pipelines import build
from pipelines.sources import load_source
from pipelines.splits import split_indices
from pipelines.streaming import clear_errors, load_images
from training import callbacks, methods, resume, strategy
from training.card import write_card
from training.methods import method_of
from training.optimizers import LayerwiseSGD
from training.run import Run
from training.trained import load_trained


def image_spec(recipe, source):
    """The spec of the images that a recipe's network sees."""
    return ImageSpec(
        height=recipe.image_size,
        width=recipe.image_size,
        crop_fraction=recipe.crop_fraction,
        mean=source.mean,
        std=source.std,
        class_names=source.class_names,
        licence=source.licence,
        source=source.url,
    )


def load_source_of(recipe, data=None, on_corrupt="error"):
    """The `Source` of a recipe's data set; arguments as in `load_data`."""
    options = {}
    if recipe.dataset == "generated":
        options = {
            "examples": recipe.examples,
            "image_size": recipe.image_size,
            "difficulty": recipe.difficulty,
        }
    return load_source(recipe.dataset, path=data, on_corrupt=on_corrupt, **options)


def load_data(recipe, data=None, source=None, on_corrupt="error"):
    """The recipe's data, split.

    Args:
        recipe: `Recipe`.
        data: Path of the data, where the data set is not made or fetched by name.
        source: A loaded `Source` instead.
        on_corrupt: `"error"` or `"skip"`.

    Returns:
        `(spec, splits)`: the `ImageSpec`, and a dict from `train`, `validation` and
        `test` to `(images, labels)`: images in memory, or `StreamedImages` where they
        would not fit.
    """
    spec, source, images, indices = load_source_split(recipe, data, source, on_corrupt)
    return spec, {
        name: (images[chosen], source.labels[chosen])
        for name, chosen in indices.items()
    }


def load_source_split(recipe, data=None, source=None, on_corrupt="error"):
    """What `load_data` gives the images of, with their names.

    Returns:
        `(spec, source, images, indices)`: the `ImageSpec`, the `Source` without what
        was left out, its images, and a dict from `train`, `validation` and `test` to
        the indices of theirs.
    """
    if source is None:
        source = load_source_of(recipe, data, on_corrupt)
    spec = image_spec(recipe, source)
    source, images = load_images(source, spec, recipe.in_memory)
    indices = split_indices(source, recipe.split, recipe.split_seed)
    build.check_arrays(images, source.labels, len(source.class_names))
    return spec, source, images, indices


def make_model(recipe, spec):
    """The recipe's network, un-trained: raw 8-bit pixels in, named outputs out."""
    return method_of(recipe).make_model(recipe, spec)


def learning_rate(recipe, steps):
    """The recipe's learning rate, or its schedule over that many steps."""
    schedules = keras.optimizers.schedules
    if recipe.schedule == "cosine":
        return schedules.CosineDecay(recipe.learning_rate, steps)
    boundaries = [round(fraction * steps) for fraction in recipe.decay_at]
    if not boundaries:
        return recipe.learning_rate
    rates = [
        recipe.learning_rate * recipe.decay_factor**drop
        for drop in range(len(boundaries) + 1)
    ]
    return schedules.PiecewiseConstantDecay(boundaries, rates)


def make_optimizer(recipe, steps):
    """The recipe's optimizer; `steps` are those of the whole training."""
    rate = learning_rate(recipe, steps)
    decay = recipe.weight_decay if recipe.weight_decay_mode == "decoupled" else None
    options = {"weight_decay": decay or None}
    if recipe.optimizer == "sgd":
        options["momentum"] = 0.9
    classes = {
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
        "sgd": keras.optimizers.SGD,
    }
    if recipe.optimizer == "adamw":
        options["weight_decay"] = decay or 0.0
    if recipe.new_layers_rate != 1:
        options["factors"] = dict.fromkeys(
            method_of(recipe).NEW_LAYERS, recipe.new_layers_rate
        )
        classes["sgd"] = LayerwiseSGD
    optimizer = classes[recipe.optimizer](rate, **options)
    if decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    return optimizer


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
    progress = resume.load_progress(state)
    if progress.epochs >= recipe.epochs:
        print(f"{run.workdir} is finished: {progress.epochs} epochs.")
        return run
    strategy.check_recipe(recipe)
    methods.check(recipe)
    spec, splits = load_data(recipe, data, source, on_corrupt)
    _check_same_data(run, progress, build.checksum(splits))
    feed = method_of(recipe).make_feed(recipe, splits, spec)
    model = trainable_model(recipe, spec, feed.steps)
    start = progress.epochs
    if start:
        resume.restore_state(state, model)
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
        done = resume.load_progress(state).epochs
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
    with strategy.scope(), _dtype_policy(recipe.dtype_policy):
        model = make_model(recipe, spec)
        print(f"Initial weights: {recipe.initial or 'random'}")
        # Published weights are the method's to load.
        if recipe.initial and not recipe.published_weights:
            start_from(model, recipe.initial)
        strategy.synchronize(model, strategy.device_count() > 1)
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
    # With the outputs that only training needs, which `load_trained` leaves out.
    trained = keras.saving.load_model(load_trained(path).path, compile=False)
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


def _check_same_data(run, progress, checksum):
    if progress.epochs and progress.data not in ("", checksum):
        raise ValueError(
            f"Expected the data that {run.workdir} was trained on so far. Received: "
            "other images, labels or order. Choose another --workdir."
        )
    progress.data = checksum


class _dtype_policy:
    """Context in which layers are made with a dtype policy."""

    def __init__(self, name):
        self.name = name

    def __enter__(self):
        self.previous = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self.name)

    def __exit__(self, *error):
        keras.config.set_dtype_policy(self.previous)
