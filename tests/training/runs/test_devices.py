"""Two devices train what one device trains."""

import functools
import json

import keras
import numpy as np
import pytest

from keras_attn.graph.keras_graph import layers_of
from keras_attn.training.data.load import load_data
from keras_attn.training.fit.train import train, trainable_model
from keras_attn.training.methods import class_embedding
from keras_attn.training.runs import devices
from tests.training.processes import Driver
from tests.training.runs.test_state import history_of, state_of
from tests.training.tiny import tiny_model, tiny_recipe

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="training is on TensorFlow"
)

# Adam divides by the spread of the gradient, which magnifies rounding errors where
# the gradient is near zero; plain gradient descent does not.
RECIPE = {"optimizer": "sgd", "learning_rate": 0.05, "epochs": 2}
MODEL = {"dropout": 0.0}


def test_two_devices_give_the_result_of_one(tmp_path, monkeypatch):
    model = ("--model", json.dumps(MODEL))
    both = Driver(tmp_path / "two", "--devices", "2", *model, recipe=RECIPE)
    monkeypatch.setattr(
        class_embedding, "build_model", functools.partial(tiny_model, **MODEL)
    )
    train(tiny_recipe(**RECIPE), tmp_path / "one", verbose=0)
    status, output = both.end()
    assert status == 0, output

    # The validation set does not divide by the number of devices.
    _, splits = load_data(tiny_recipe(**RECIPE))
    assert len(splits["validation"][1]) % 2 == 1

    wanted, found = state_of(tmp_path / "one"), state_of(tmp_path / "two")
    assert list(wanted) == list(found)
    for name in set(wanted) - {"progress"}:
        np.testing.assert_allclose(
            found[name], wanted[name], rtol=1e-3, atol=2e-5, err_msg=name
        )
    pairs = zip(history_of(tmp_path / "one"), history_of(tmp_path / "two"), strict=True)
    # Keras averages the losses of single outputs over batches, however large.
    for one, two in pairs:
        for name in {"loss", "logits_accuracy", "val_loss", "val_logits_accuracy"}:
            assert float(two[name]) == pytest.approx(float(one[name]), rel=1e-4), name

    # The weights moved by far more than the tolerance.
    start = trainable_model(tiny_recipe(**RECIPE), load_data(tiny_recipe())[0], 9)
    moved = np.abs(wanted["variable_0000"] - start.variables[0].numpy()).max()
    assert moved > 5e-3

    # A model from two devices loads anywhere.
    saved = keras.saving.load_model(
        tmp_path / "two" / "checkpoints" / "last.keras", compile=False
    )
    layers = [
        layer
        for layer in layers_of(saved)
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert len(layers) == 2 and not any(layer.synchronized for layer in layers)


def test_every_normalisation_is_synchronised_even_inside_layers():
    images = keras.Input((32, 32, 3))
    model = tiny_model("", "class_embedding", 10, images)

    def flags():
        return [
            layer.synchronized
            for layer in layers_of(model)
            if isinstance(layer, keras.layers.BatchNormalization)
        ]

    devices.synchronize(model, True)
    assert flags() == [True, True]
    with devices.portable(model):
        assert flags() == [False, False]
    assert flags() == [False, False], "one device needs no synchronisation"


def test_jax_compiles_every_step(monkeypatch):
    assert not devices.compiles(tiny_recipe())
    assert devices.compiles(tiny_recipe(jit_compile=True))
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert devices.compiles(tiny_recipe())


def test_what_devices_cannot_share_is_an_error(monkeypatch):
    devices.check_recipe(tiny_recipe(batch_size=9, jit_compile=True))
    monkeypatch.setattr(devices, "device_count", lambda: 2)
    devices.check_recipe(tiny_recipe(batch_size=10))
    with pytest.raises(ValueError, match="2 devices can share.*batch_size=9"):
        devices.check_recipe(tiny_recipe(batch_size=9))
    with pytest.raises(ValueError, match="jit_compile"):
        devices.check_recipe(tiny_recipe(jit_compile=True))
