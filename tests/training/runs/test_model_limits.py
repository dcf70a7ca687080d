"""Files that ask for more than they hold are refused before it is allocated."""

import json
import resource
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from keras_attn.training.adoption import ModelSource, open_model
from keras_attn.training.runs import model_limits
from keras_attn.training.runs.run import read_model

LARGE = 10**7


def network(*added, side=8):
    inputs = [keras.Input((side, side, 3)), layers.Conv2D(4, 3, name="conv")]
    return keras.Sequential([*inputs, layers.Flatten(), *added])


def rewritten(path, change):
    """Replaces members of a model file; `change` gets their dict."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def asking(path, layer, **options):
    """A file with other options of a layer in its configuration."""
    network(layer, layers.Dense(3, name="last")).save(path)

    def change(members):
        config = json.loads(members["config.json"])
        for each in config["config"]["layers"]:
            if each["config"].get("name") == layer.name:
                each["config"].update(options)
                # Made from the options, not from a shape that is stored.
                each["build_config"] = {}
        config["build_config"] = {"input_shape": [None, 8, 8, 3]}
        members["config.json"] = json.dumps(config)

    rewritten(path, change)


@pytest.mark.parametrize(
    ("layer", "options"),
    [
        (layers.Dense(4), {"units": LARGE}),
        (layers.Dense(4), {"units": 10**15}),
        (layers.EinsumDense("ab,bc->ac", 4), {"output_shape": [LARGE]}),
        (layers.Embedding(4, 2), {"input_dim": 10**10}),
    ],
)
def test_enormous_layers(tmp_path, layer, options):
    path = tmp_path / "large.keras"
    asking(path, layer, **options)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"large\.keras.* asks for [\d,]+ bytes"):
        read_model(path)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < 2 * model_limits.WEIGHT_BYTES
    assert keras.Variable(np.zeros(3)).shape == (3,)


def test_many_layers_count_together(tmp_path):
    path = tmp_path / "many.keras"
    network(*(layers.Dense(2500, name=f"d{n}") for n in range(4))).save(path)

    def change(members):
        small = tmp_path / "small.keras"
        network().save(small)
        with zipfile.ZipFile(small) as archive:
            members["model.weights.h5"] = archive.read("model.weights.h5")

    rewritten(path, change)
    with pytest.raises(ValueError, match="asks for"):
        read_model(path)


def test_arrays_that_claim_more_than_the_file_holds(tmp_path):
    path, weights = tmp_path / "claims.keras", tmp_path / "w.h5"
    network().save(path)

    def change(members):
        weights.write_bytes(members["model.weights.h5"])
        with h5py.File(weights, "a") as file:
            file.create_dataset("layers/more", (10**6, 10**5), chunks=(100, 100))
        members["model.weights.h5"] = weights.read_bytes()

    rewritten(path, change)
    with pytest.raises(ValueError, match="weights claim to have 400,000,0"):
        read_model(path)


def test_weights_of_a_known_network(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_dataset("more", (10**6, 10**5), chunks=(100, 100))
    with pytest.raises(ValueError, match=r"w\.h5 into ResNet50: its weights claim"):
        open_model(ModelSource(f"resnet50={tmp_path}/w.h5"))


@pytest.mark.parametrize("mode", ["int8", "int4", "lora", "mixed", "optimizer", "h5"])
def test_what_people_save_is_read(tmp_path, mode, monkeypatch):
    # A dense layer of 24 MB beside which the allowance for all files is nothing.
    monkeypatch.setattr(model_limits, "WEIGHT_BYTES", 2**12)
    path = tmp_path / f"model.{'h5' if mode == 'h5' else 'keras'}"
    dense = layers.Dense(512, dtype="mixed_bfloat16" if mode == "mixed" else None)
    model = network(dense, layers.Dense(3), side=32)
    if mode in ("int8", "int4"):
        model.quantize(mode)
    if mode == "lora":
        dense.enable_lora(8)
    if mode == "optimizer":
        model.compile("adam", "mse")
        model.optimizer.build(model.trainable_variables)
    model.save(path)
    images = np.random.default_rng(0).random((2, 32, 32, 3), "float32")
    wanted, found = (each(images) for each in (model, read_model(path)))
    np.testing.assert_allclose(wanted, found, rtol=1e-5, atol=1e-5)
