"""A method that adds files only: its options, the method, its recipes."""

import importlib
import json
import pathlib
import sys

import keras
import numpy as np
import pytest

from keras_attn.training import methods, recipes
from keras_attn.training.cli import main
from keras_attn.training.data.load import load_data
from keras_attn.training.experiments import results
from keras_attn.training.recipes import options, registry
from keras_attn.training.runs.run import Run
from keras_attn.training.runs.state import load_progress
from tests.training import tiny_models

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="training is on TensorFlow"
)
FILES = pathlib.Path(__file__).with_name("toy")


@pytest.fixture
def toy(monkeypatch):
    """The files of the toy method among those of the project."""
    with monkeypatch.context() as patch:
        for package in (recipes, options, methods):
            folder = FILES / package.__name__.rpartition(".")[2]
            patch.setattr(package, "__path__", [*package.__path__, str(folder)])
        importlib.reload(registry)
        yield
    for name in [name for name in sys.modules if name.split(".")[-1].startswith("toy")]:
        del sys.modules[name]
    options.options_of.cache_clear()
    importlib.reload(registry)


def test_it_trains_evaluates_explains_exports_and_reproduces(toy, tmp_path, capsys):
    def command(*words):
        capsys.readouterr()
        assert main([str(word) for word in words]) == 0
        return capsys.readouterr().out

    folder = tmp_path / "run"
    assert "generated_cells_weak" in command("recipes")
    assert "patch_logits  4 x 4 x 10" in command("summary", "generated_cells_weak")
    out = command("train", "generated_cells_weak", "--workdir", folder)
    assert f"keras-attn export {folder}" in out
    run = Run.open(folder)
    assert run.recipe.options.strength == 0.25
    assert (folder / "card.md").read_text().count("toy, cells, weak") == 1

    # The loss of the last epoch's model on the validation images, by hand.
    _, splits = load_data(run.recipe)
    images, labels = splits["validation"]
    logits = run.load_model("last").predict(images, verbose=0)["logits"]
    logs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    entropy = -np.log(logs[np.arange(len(labels)), labels]).mean()
    history = load_progress(run.checkpoints / "last.npz").history
    assert history[-1]["val_loss"] == pytest.approx(0.25 * entropy, rel=1e-4)

    found = json.loads(command("evaluate", folder, "--split", "validation", "--json"))
    accuracy = float((logits.argmax(-1) == labels).mean())
    assert found["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    image = tiny_models.save_image(tmp_path / "image.png", images[0])
    command("explain", folder, image, "--output", tmp_path / "explained")
    assert (tmp_path / "explained" / "image.png").is_file()
    command("export", folder, "--output", tmp_path / "exported")
    assert list((tmp_path / "exported").rglob("saved_model.pb"))

    words = ("--workdir", tmp_path / "runs", "--results", tmp_path / "results")
    command("reproduce", "toy_table1_generated", *words, "--rows", "weak")
    lines = results.read_rows(tmp_path / "results" / "toy_table1_generated.csv")
    assert [(line["method"], line["row"]) for line in lines] == [("toy", "weak")]


def test_it_is_gone_without_its_files():
    assert "toy" not in options.method_names()
    assert "toy_table1_generated" not in registry.EXPERIMENTS
    with pytest.raises(ValueError, match="one of anchornet, .* Received: method='toy'"):
        options.options_of("toy")
