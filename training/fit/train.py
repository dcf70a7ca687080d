"""Recipe and data -> trained model in a run folder."""

import contextlib
import dataclasses
import json
import pathlib
import random

import keras
import numpy as np

from keras_attn.graph.keras_graph import layers_of
from keras_attn.pipelines.batches import build
from keras_attn.pipelines.images.streaming import clear_errors
from keras_attn.training.data.load import load_source_split
from keras_attn.training.fit import callbacks
from keras_attn.training.fit.validation import Validation
from keras_attn.training.methods import method_of
from keras_attn.training.runs import devices, hosts
from keras_attn.training.runs.card import write_card
from keras_attn.training.runs.run import Run
from keras_attn.training.runs.state import (
    Progress,
    load_progress,
    restore_state,
    save_state,
    take_values,
)

# Steps below which statistics are those of the last two batches, see
# `adapt_statistics`.
FEW_STEPS = 20


def make_model(recipe, spec):
    """The recipe's network, untrained: raw 8-bit pixels in, named outputs out."""
    with dtype_policy(recipe.dtype_policy):
        return method_of(recipe).make_model(recipe, spec)


@contextlib.contextmanager
def _graphs_let_go():
    """TensorFlow lets go of the graphs traced inside.

    It registers every custom gradient by a name of its own, for good, such as that of
    the sum over devices in the step of an optimizer. Each holds its graph, and that the
    weights and the optimizer's values.
    """
    if keras.backend.backend() != "tensorflow":
        yield
        return
    from tensorflow.python.framework.ops import gradient_registry

    known = gradient_registry._registry
    before = {*known}
    try:
        yield
    finally:
        for name in {*known} - before:
            if name.startswith("CustomGradient-"):
                del known[name]


@_graphs_let_go()
def train(recipe, workdir, data=None, source=None, on_corrupt="error", verbose=None):
    """Trains a recipe in a run folder, or resumes where that run stopped.

    The folder is made when data and model are known to be fit, so a mistake in the
    command leaves nothing behind.

    Args:
        recipe: `Recipe`.
        workdir: Folder of the run; made if it does not exist.
        data, source, on_corrupt: See `load_data`.
        verbose: See `keras.Model.fit`; `None`: a line per epoch.

    Returns:
        The `Run`.

    Raises:
        ValueError: If the folder belongs to another recipe or to other data, or the
            data is unfit.
        NotFiniteError: If the loss becomes NaN or infinite.
        SaveError: If a checkpoint cannot be written.
    """
    group = hosts.group()
    run, progress = _opened(workdir, recipe)
    state = run.checkpoints / "last.npz"
    start = progress.epochs
    if progress.is_finished(recipe.epochs):
        print(f"{run.workdir} is finished: {start} epochs.")
        return run
    method = method_of(recipe)
    devices.check_recipe(recipe)
    method.check(recipe)
    # A data set that is known by its name alone may have to be fetched.
    with group.first() if data is None else contextlib.nullcontext():
        found = load_source_split(recipe, data, source, on_corrupt)
    spec, splits = found.spec, found.splits
    _check_same_data(run, progress, splits)
    if found.source.left_out:
        progress.notes["Left out"] = found.source.left_out
    # What it computes before the training is kept for the next process.
    with group.first():
        feed = method.make_feed(recipe, splits, spec)
    prepare(recipe)
    model = trainable_model(recipe, spec, feed.steps, _noted(progress))
    saved = _saved_model(recipe, spec, model)
    if start:
        _resume(run, model, progress)
    watch = method.watched(model) if len(splits["validation"][1]) else None
    has_own_start = bool(method.first_epoch) and not start
    batches = feed.training(start + has_own_start), feed.validation()
    batches = [each if each is None else method.label(model, each) for each in batches]
    added = [
        callbacks.StopAtNotFinite(run, progress),
        *method.callbacks(recipe, saved, splits),
        callbacks.Checkpoint(
            run, progress, watch, saved, method.patience(recipe) if watch else 0
        ),
    ]
    if devices.data_parallel() and batches[1] is not None:
        added.insert(0, Validation(batches[1]))
        batches[1] = None
    if verbose is None:
        added.append(callbacks.EpochLines(recipe.epochs, feed.steps, watch))
    if group.is_first:
        added.append(callbacks.EventFiles(run))
        Run.create(workdir, recipe)
        if data is not None:
            run.remember_data(data)
        feed.save(run)
    try:
        if has_own_start:
            one = _on_one_device(recipe, spec, feed.steps, model)
            _first_epoch(method, recipe, model, one, splits, batches[1], added)
            start = 1
        _fit(model, batches, recipe, start, feed.steps, added, verbose)
    except KeyboardInterrupt:
        done = load_progress(state).epochs if group.is_first else progress.epochs
        raise KeyboardInterrupt(
            f"Interrupted {run.workdir} after epoch {done} of {recipe.epochs}. The "
            "same command resumes from there."
        ) from None
    if group.is_first:
        write_card(run, spec)
    return run


def _opened(workdir, recipe):
    """The run and its progress, whose files process 0 reads for all."""
    group, content = hosts.group(), ""
    group.agree(recipe.to_dict())
    if group.is_first:
        run = Run.check(workdir, recipe)
        progress = load_progress(run.checkpoints / "last.npz")
        content = json.dumps(dataclasses.asdict(progress))
    else:
        run = Run(pathlib.Path(workdir), recipe)
    progress = Progress(**json.loads(group.share(content.encode())))
    if group.count > 1:
        progress.notes["Processes"] = f"{group.count}, from epoch {progress.epochs + 1}"
    return run, progress


def _resume(run, model, progress):
    """Gives a model the state of its run."""
    state, start, epochs = (
        run.checkpoints / "last.npz",
        progress.epochs,
        run.recipe.epochs,
    )
    restore_state(state, model)
    print(f"Resuming {run.workdir} after epoch {start} of {epochs}.")
    if hosts.group().is_first and Run.open(run.workdir).recipe.epochs < epochs:
        progress.notes["Extended"] = (
            f"after {start} epochs to {epochs}, with the learning rates of "
            f"epochs {start + 1} to {epochs} of {epochs}"
        )
        save_state(state, model, progress)


def _noted(progress):
    """A function that prints the line on the initial weights and notes the first."""

    def report(line):
        print(line)
        progress.notes.setdefault(*line.split(": ", 1))

    return report


@contextlib.contextmanager
def _unchanged_seeds():
    states = random.getstate(), np.random.get_state()
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])


def _on_one_device(recipe, spec, steps, model):
    """The model, or one with its values of which each process has a whole."""
    if devices.data_parallel() is None:
        return model
    with _unchanged_seeds():
        one = trainable_model(recipe, spec, steps, shared=False)
    take_values(one, model)
    return one


def _first_epoch(method, recipe, model, one, splits, validation, added):
    """Trains the first epoch as a method does by itself, in the model `one`."""
    listed = keras.callbacks.CallbackList(added, model=model)
    listed.on_train_begin()
    listed.on_epoch_begin(0)
    logs = method.first_epoch(recipe, one, splits)
    if one is not model:
        take_values(model, one)
    listed.on_train_batch_end(0, logs)
    if validation is not None:
        found = model.evaluate(validation, verbose=0, return_dict=True)
        logs |= {f"val_{name}": value for name, value in found.items()}
    listed.on_epoch_end(0, logs)
    listed.on_train_end(logs)


def _fit(model, batches, recipe, start, steps, added, verbose):
    if start >= recipe.epochs:
        return
    training, validation = batches
    with clear_errors(), devices.fit_scope():
        model.fit(
            training,
            validation_data=validation,
            initial_epoch=start,
            epochs=recipe.epochs,
            steps_per_epoch=steps,
            shuffle=False,
            verbose=verbose or 0,
            callbacks=added,
        )


def prepare(recipe):
    """Sets the process's random seed, and its determinism for good."""
    keras.utils.set_random_seed(recipe.seed)
    if recipe.deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def trainable_model(recipe, spec, steps, report=None, shared=True):
    """The recipe's compiled model and built optimizer, before the first step.

    Args:
        recipe: `Recipe`; its random weights depend on its seed after `prepare`.
        spec: `ImageSpec` of its images.
        steps: Steps per epoch.
        report: Called with lines about the initial weights and the statistics.
        shared: Whether several devices share its batches.
    """
    method = method_of(recipe)
    scope = devices.scope() if shared else contextlib.nullcontext()
    with scope, dtype_policy(recipe.dtype_policy):
        model = method.make_trainer(recipe, spec, steps)
        origin = method.start(recipe, model)
        devices.synchronize(model, devices.device_count() > 1)
        few = adapt_statistics(model, steps * recipe.epochs)
        method.compile(model, recipe, steps)
        model.optimizer.build(model.trainable_variables)
        if shared:
            # Other hosts may round otherwise.
            take_values(model, model)
    if report:
        report(f"Initial weights: {origin}")
        if few:
            report(
                f"Batch normalisation: statistics of {steps * recipe.epochs} steps. "
                "More epochs or smaller batches make them better"
            )
    return model


def adapt_statistics(model, steps):
    """Lets batch normalisation learn its statistics in the steps of a short training.

    Its momentum becomes at most `1 - 10 / steps`, at least 0.5: from 1000 steps on,
    Keras's default of 0.99 stays. The statistics depend on it, the gradients do not.

    Args:
        model: Model to train.
        steps: Steps of the whole training.

    Returns:
        True for statistics of fewer than `FEW_STEPS` steps.
    """
    kind = keras.layers.BatchNormalization
    layers = [x for x in layers_of(model) if isinstance(x, kind) and x.trainable]
    for layer in layers:
        layer.momentum = min(layer.momentum, max(0.5, 1 - 10 / steps))
    return bool(layers) and steps < FEW_STEPS


def initial_model(recipe, spec):
    """The model that a run of the recipe would save before its first step."""
    prepare(recipe)
    # Any number of steps: it is not trained.
    return _saved_model(recipe, spec, trainable_model(recipe, spec, steps=1))


def _saved_model(recipe, spec, model):
    with dtype_policy(recipe.dtype_policy):
        return method_of(recipe).saved_model(recipe, spec, model)


def _check_same_data(run, progress, splits):
    known = progress.data
    if progress.epochs and known and not build.is_checksum_of(known, splits):
        raise ValueError(
            f"Expected the data that {run.workdir} was trained on so far. Received: "
            "other images, labels or order. Choose another --workdir."
        )
    progress.data = build.checksum(splits)
    hosts.group().agree({"data": progress.data})


@contextlib.contextmanager
def dtype_policy(name):
    """Context in which layers are made with a dtype policy."""
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(previous)
