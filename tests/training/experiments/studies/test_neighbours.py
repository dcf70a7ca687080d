"""The study of nearest neighbours, through `reproduce`."""

import keras
import numpy as np
import pytest

from keras_attn.models.vit import VIT_SIZES
from keras_attn.training.data.load import load_data
from keras_attn.training.experiments import reproduce, results
from keras_attn.training.fit.train import initial_model, prepare, trainable_model
from keras_attn.training.methods import dino
from keras_attn.training.recipes.experiment import Experiment, Row
from keras_attn.training.runs.run import Run
from tests.training.tiny_dino import TINY_SIZE, tiny_recipe

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="training is on TensorFlow"
)

RECIPE = tiny_recipe(epochs=1, warmup_epochs=0.5, resting_epochs=0.25)


def vote(features, train, train_labels, k):
    """The classes that neighbours vote for, image by image."""
    found = []
    for feature in features.astype("float64"):
        similar = [
            feature @ other / np.linalg.norm(feature) / np.linalg.norm(other)
            for other in train.astype("float64")
        ]
        votes = {}
        for i in np.argsort(similar)[-k:]:
            label = int(train_labels[i])
            votes[label] = votes.get(label, 0) + np.exp(similar[i] / 0.07)
        found.append(max(votes, key=votes.get))
    return np.array(found)


def test_rows_are_the_run_its_start_and_pixels(tmp_path, monkeypatch):
    monkeypatch.setitem(VIT_SIZES, "tiny", TINY_SIZE)
    experiment = Experiment(
        "dino", "knn", "generated", "Tiny", (Row("dino", RECIPE),), study="neighbours"
    )
    monkeypatch.setattr(reproduce, "get_experiment", {"tiny": experiment}.__getitem__)
    folders = {"workdir": tmp_path / "runs", "results_folder": tmp_path / "results"}
    path = reproduce.reproduce("tiny", **folders)
    lines = {line["row"]: line for line in results.read_rows(path)}
    assert list(lines) == ["dino", "random_initialization", "pixels"]
    assert {line["metric"] for line in lines.values()} == {"knn_accuracy"}
    assert path.with_suffix(".md").exists() and path.with_suffix(".png").exists()

    run = Run.open(tmp_path / "runs" / "tiny" / "dino" / "seed-0")
    spec, splits = load_data(RECIPE)
    (images, labels), (train, train_labels) = splits["test"], splits["train"]
    start = initial_model(RECIPE, spec)
    mean, std = np.array(spec.mean), np.array(spec.std)
    describe = {
        "dino": lambda x: dino.embeddings(run.load_model("last"), x),
        "random_initialization": lambda x: dino.embeddings(start, x),
        "pixels": lambda x: ((x / 255 - mean) / std).reshape(len(x), -1),
    }
    for row, function in describe.items():
        voted = vote(function(images), function(train), train_labels, k=5)
        wanted = 100 * (voted == labels).mean()
        # A tie may fall either way.
        assert lines[row]["value"] == pytest.approx(wanted, abs=100.1 / len(labels))


def test_the_initial_network_is_what_a_run_starts_with(monkeypatch):
    monkeypatch.setitem(VIT_SIZES, "tiny", TINY_SIZE)
    spec, _ = load_data(RECIPE)
    start = initial_model(RECIPE, spec)
    prepare(RECIPE)
    model = trainable_model(RECIPE, spec, steps=7)
    for one, two in zip(start.weights, model.student.weights, strict=True):
        np.testing.assert_array_equal(one, two)
