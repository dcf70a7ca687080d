"""Checkpoints after an epoch, what stops them, and NaN."""

import csv
import errno
import os

import keras
import numpy as np
import pytest

from keras_attn.training.fit import callbacks
from keras_attn.training.runs import state
from keras_attn.training.runs.run import Run
from tests.training.tiny import tiny_recipe


def small_model():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="dense")])
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def attached(callback, model):
    callback.set_model(model)
    callback.on_epoch_begin(0)
    return callback


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", tiny_recipe())


def weights_of(run, which):
    return keras.saving.load_model(run.model_path(which)).get_weights()[0]


def test_the_best_model_is_kept_and_the_last_one_replaced(run):
    model, progress = small_model(), state.Progress()
    checkpoint = attached(callbacks.Checkpoint(run, progress, "val"), model)
    for epoch, value in enumerate([0.3, 0.7, 0.7, 0.5]):
        model.set_weights([np.full((2, 2), epoch), np.zeros(2)])
        checkpoint.on_epoch_end(epoch, {"val": value})
    assert (progress.best, progress.best_epoch) == (0.7, 1)
    np.testing.assert_array_equal(weights_of(run, "best"), 1.0)
    np.testing.assert_array_equal(weights_of(run, "last"), 3.0)
    with open(run.workdir / "history.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["epoch"], line["val"]) for line in lines] == [
        ("1", "0.3"),
        ("2", "0.7"),
        ("3", "0.7"),
        ("4", "0.5"),
    ]
    assert state.load_progress(run.checkpoints / "last.npz") == progress


def test_without_a_watched_value_the_last_model_is_the_best(run):
    model, progress = small_model(), state.Progress()
    checkpoint = attached(callbacks.Checkpoint(run, progress, None), model)
    for epoch in range(2):
        checkpoint.on_epoch_end(epoch, {"loss": 1.0})
    assert progress.best_epoch == 1


def test_a_watched_value_that_is_missing_is_no_silent_choice(run):
    checkpoint = attached(
        callbacks.Checkpoint(run, state.Progress(), "val"), small_model()
    )
    with pytest.raises(KeyError):
        checkpoint.on_epoch_end(0, {"loss": 1.0})


def fail_with(number):
    def fail(*arguments):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_keeps_the_epoch_before(run, monkeypatch, function):
    model, progress = small_model(), state.Progress()
    checkpoint = attached(callbacks.Checkpoint(run, progress, None), model)
    checkpoint.on_epoch_end(0, {"loss": 1.0})
    before = (run.checkpoints / "last.npz").read_bytes()
    monkeypatch.setattr(os, function, fail_with(errno.ENOSPC))
    with pytest.raises(callbacks.SaveError) as caught:
        checkpoint.on_epoch_end(1, {"loss": 0.5})
    message = str(caught.value)
    assert "\n" not in message and str(run.workdir) in message
    for words in (
        "Cannot save epoch 2",
        "No space left on device",
        "up to epoch 1 is intact",
        "Free some space, then run the same command to resume",
    ):
        assert words in message
    assert (run.checkpoints / "last.npz").read_bytes() == before
    assert state.load_progress(run.checkpoints / "last.npz").epochs == 1
    assert not list(run.workdir.rglob(".*"))
    run.load_model("last")


def test_a_full_disk_while_the_model_is_saved(run, monkeypatch):
    model = small_model()
    checkpoint = attached(callbacks.Checkpoint(run, state.Progress(), None), model)
    checkpoint.on_epoch_end(0, {"loss": 1.0})
    before = run.model_path("last").read_bytes()

    def save(path):
        path.write_bytes(b"the first half")
        fail_with(errno.ENOSPC)()

    monkeypatch.setattr(model, "save", save)
    with pytest.raises(callbacks.SaveError, match="No space left on device"):
        checkpoint.on_epoch_end(1, {"loss": 0.5})
    assert run.model_path("last").read_bytes() == before
    assert not list(run.checkpoints.glob(".*"))


def test_the_first_epoch_has_nothing_to_lose(run):
    error = callbacks.save_error(OSError(errno.EACCES, "Permission denied"), run, 0)
    assert "Permission denied. Nothing lost. Fix this, then run" in str(error)


def test_a_stale_partial_model_does_no_harm(run):
    (run.checkpoints / ".last.partial.keras").write_bytes(b"half")
    model = small_model()
    checkpoint = attached(callbacks.Checkpoint(run, state.Progress(), None), model)
    checkpoint.on_epoch_end(0, {"loss": 1.0})
    assert not list(run.checkpoints.glob(".*"))
    run.load_model("last")


def test_history_takes_new_columns(tmp_path):
    callbacks.write_history(tmp_path / "h.csv", [{"epoch": 1}, {"epoch": 2, "new": 3}])
    assert (tmp_path / "h.csv").read_text() == "epoch,new\n1,\n2,3\n"


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_step_checkpoint_and_causes(run, loss):
    progress = state.Progress([{"epoch": 1}, {"epoch": 2}])
    watch = attached(callbacks.StopAtNotFinite(run, progress), small_model())
    watch.on_epoch_begin(2)
    watch.on_train_batch_end(6, {"loss": 1.0})
    with pytest.raises(callbacks.NotFiniteError) as caught:
        watch.on_train_batch_end(7, {"loss": loss})
    message = str(caught.value)
    assert f"The loss became {loss} at step 8 of epoch 3." in message
    assert f"{run.checkpoints / 'last.keras'}, after epoch 2" in message
    assert "Likely causes: too high a learning rate (learning_rate=0.01)" in message


def test_weights_spoilt_by_the_last_step_are_not_saved(run):
    model = small_model()
    watch = attached(callbacks.StopAtNotFinite(run, state.Progress()), model)
    watch.on_train_batch_end(4, {"loss": 1.0})
    watch.on_epoch_end(0, {"loss": 1.0})
    model.set_weights([np.array([[0.0, np.nan], [0.0, 0.0]]), np.zeros(2)])
    with pytest.raises(callbacks.NotFiniteError, match="dense/kernel.* at step 5 of"):
        watch.on_epoch_end(0, {"loss": 1.0})
