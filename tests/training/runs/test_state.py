"""A run that is stopped ends as one that is not: processes are really killed."""

import csv
import io
import json
import pathlib
import random
import signal
import time
import zipfile

import keras
import numpy as np
import pytest

from keras_attn.training.runs import state
from tests.training.processes import Driver

RECIPE = {"deterministic": True, "epochs": 4}


def state_of(workdir):
    with np.load(workdir / "checkpoints" / "last.npz") as state:
        return {name: state[name] for name in state.files}


def history_of(workdir):
    with open(workdir / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="training is on TensorFlow"
)
def test_a_run_that_dies_in_every_way_ends_as_one_that_does_not(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    uninterrupted = Driver(whole, recipe=RECIPE)

    # Killed from outside, somewhere in the second epoch.
    process = Driver(broken, "--pause", "0.1", recipe=RECIPE)
    process.wait_for("first step of epoch 2")
    time.sleep(random.uniform(0.0, 0.7))
    process.send_signal(signal.SIGKILL)
    status, _ = process.end()
    assert status == -signal.SIGKILL
    assert state.load_progress(broken / "checkpoints" / "last.npz").epochs == 1

    # Killed while it writes the state of the second epoch.
    process = Driver(broken, "--die-saving-epoch", "2", recipe=RECIPE)
    status, output = process.end()
    assert status == -signal.SIGKILL, output
    assert f"Resuming {broken} after epoch 1 of 4." in output
    partial = broken / "checkpoints" / ".last.npz.partial"
    assert partial.read_bytes() == b"the first half of a state"
    assert state.load_progress(broken / "checkpoints" / "last.npz").epochs == 1

    # No room for the checkpoint of the third epoch.
    _, output = Driver(broken, "--largest-file", "20000", recipe=RECIPE).end()
    assert "Resuming" in output and "SaveError: Cannot save epoch 3" in output, output
    assert "File too large. What was saved up to epoch 2 is intact." in output
    assert sorted(path.name for path in (broken / "checkpoints").iterdir()) == [
        "best.keras",
        "last.keras",
        "last.npz",
    ]
    for name in ("best", "last"):
        path = broken / "checkpoints" / f"{name}.keras"
        keras.saving.load_model(path, compile=False)

    # Ctrl-C in the third epoch.
    process = Driver(broken, "--pause", "0.1", recipe=RECIPE)
    process.wait_for("first step of epoch 3")
    process.send_signal(signal.SIGINT)
    status, output = process.end()
    assert status == 130, output
    assert f"Interrupted {broken} after epoch 2 of 4. The same command" in output

    _, output = Driver(broken, recipe=RECIPE).end()
    assert f"Resuming {broken} after epoch 2 of 4." in output
    assert "Epoch 3/4" in output and "Epoch 2/4" not in output

    _, output = uninterrupted.end()
    assert "Resuming" not in output
    compare_states(state_of(whole), state_of(broken))
    assert [line["epoch"] for line in history_of(broken)] == ["1", "2", "3", "4"]
    assert history_of(broken) == history_of(whole)
    for name in ("best", "last"):
        path = pathlib.Path("checkpoints") / f"{name}.keras"
        assert weights_in(whole / path) == weights_in(broken / path)


def compare_states(wanted, found):
    assert list(wanted) == list(found)
    progress = {
        name: json.loads(str(state.pop("progress")))
        for name, state in (("wanted", wanted), ("found", found))
    }
    for values in progress.values():
        assert values.pop("seconds") > 0
    assert progress["wanted"] == progress["found"]
    for name in wanted:
        assert wanted[name].dtype == found[name].dtype
        np.testing.assert_array_equal(wanted[name], found[name], err_msg=name)
    # Not vacuous: weights, Adam's moments and counter, and dropout's state are there.
    integers = [array for array in wanted.values() if array.dtype.kind in "iu"]
    assert len(wanted) > 20 and {array.shape for array in integers} == {(), (2,)}


def weights_in(path):
    with zipfile.ZipFile(path) as archive:
        return archive.read("model.weights.h5")


# ---- the state file ----------------------------------------------------------


def compiled_model(units=3):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(units),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
        ]
    )
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def train_a_little(model):
    inputs = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    for _ in range(2):
        model.train_on_batch(inputs, inputs[:, :3])


def test_a_state_holds_everything_that_decides_the_next_step(tmp_path):
    model = compiled_model()
    train_a_little(model)
    progress = state.Progress([{"epoch": 1, "loss": 0.1}], 0.5, 0, 2.5, "abcd")
    state.save_state(tmp_path / "s.npz", model, progress)
    assert state.load_progress(tmp_path / "s.npz") == progress

    other = compiled_model()
    state.restore_state(tmp_path / "s.npz", other)
    train_a_little(model)
    train_a_little(other)
    for wanted, found in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(found.value),
            keras.ops.convert_to_numpy(wanted.value),
            err_msg=wanted.path,
        )


def test_a_new_run_has_no_progress(tmp_path):
    progress = state.load_progress(tmp_path / "none.npz")
    assert progress.epochs == 0 and progress.best == -np.inf


def test_a_best_value_of_minus_infinity_survives(tmp_path):
    state.save_state(tmp_path / "s.npz", compiled_model(), state.Progress())
    assert state.load_progress(tmp_path / "s.npz") == state.Progress()


def test_the_state_of_another_model_is_refused(tmp_path):
    state.save_state(tmp_path / "s.npz", compiled_model(3), state.Progress())
    model = compiled_model(5)
    before = model.get_weights()
    with pytest.raises(ValueError, match="s.npz belongs to another model"):
        state.restore_state(tmp_path / "s.npz", model)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def damaged_states():
    whole = io.BytesIO()
    np.savez(whole, progress=np.array("{}"), variable_0000=np.arange(100.0))
    whole = whole.getvalue()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    pickled = io.BytesIO()
    np.savez(pickled, progress=np.array([{}], object), allow_pickle=True)
    single = io.BytesIO()
    np.save(single, np.arange(3))
    foreign = io.BytesIO()
    np.savez(foreign, something=np.arange(3))
    return {
        "empty": b"",
        "text": b"no state at all",
        "half": whole[: len(whole) // 2],
        "bit flip": bytes(flipped),
        "pickle": pickled.getvalue(),
        "one array": single.getvalue(),
        "other arrays": foreign.getvalue(),
    }


@pytest.mark.parametrize("kind", damaged_states())
def test_a_damaged_state_is_a_clear_error(tmp_path, kind):
    path = tmp_path / "last.npz"
    path.write_bytes(damaged_states()[kind])
    with pytest.raises(ValueError, match="Cannot read the training state .*last.npz"):
        state.load_progress(path)
        state.restore_state(path, compiled_model())
