"""The examples run from the first cell to the last, small, and do what they say."""

import json
import pathlib
import re
import runpy

import keras
import numpy as np
import pytest
from PIL import Image

from keras_attn.graph.keras_graph import layers_of

FOLDER = pathlib.Path(__file__).parent.parent / "examples"
PAGE = FOLDER.parent / "docs" / "examples.md"
EXAMPLES = sorted(
    path.stem for path in FOLDER.glob("*.py") if path.stem != "example_data"
)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs an example as `python examples/NAME.py` would, and returns its names."""
    pytest.importorskip("matplotlib").use("agg")
    monkeypatch.setenv("EXAMPLES_QUICK", "1")
    monkeypatch.setenv("EXAMPLES_OUTPUT", str(tmp_path))
    monkeypatch.syspath_prepend(FOLDER)
    # A single step takes less time than tracing it.
    tf = pytest.importorskip("tensorflow")
    tf.config.run_functions_eagerly(True)

    def run(name):
        names = runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
        picture = np.asarray(Image.open(tmp_path / f"{name}.png").convert("L"))
        assert picture.std() > 5, "The picture is empty"
        return names

    yield run
    tf.config.run_functions_eagerly(False)


def test_all_are_listed_and_nothing_else():
    listed = re.findall(r"^\| `examples/(\w+)\.py", PAGE.read_text(), re.MULTILINE)
    assert sorted(listed) == EXAMPLES
    assert len(EXAMPLES) == 5


@pytest.mark.parametrize("name", EXAMPLES)
def test_cells_are_prose_and_code_in_turn(name):
    """As VS Code and Jupytext read them: the first cell is prose with a title."""
    text = (FOLDER / f"{name}.py").read_text()
    cells = re.split(r"^# %%(.*)\n", text, flags=re.MULTILINE)
    assert cells[0] == ""
    kinds, bodies = cells[1::2], cells[2::2]
    assert kinds[0] == " [markdown]" and bodies[0].startswith("# # ")
    for kind, body in zip(kinds, bodies, strict=True):
        assert kind in ("", " [markdown]")
        prose = [line.startswith("#") for line in body.splitlines() if line]
        assert all(prose) if kind else not all(prose), body


@pytest.mark.parametrize("name", EXAMPLES)
def test_notebooks_are_the_scripts(name):
    made = runpy.run_path(str(PAGE.parent / "build" / "notebooks.py"))["notebook"]
    script = (FOLDER / f"{name}.py").read_text()
    notebook = json.loads((FOLDER / f"{name}.ipynb").read_text())
    assert notebook == made(script)
    code = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    assert len(code) > 2 and all(each in script for each in code)


def test_a_block_in_your_model(run, capsys):
    names = run("block_in_your_model")
    assert names["model"].output["patch_logits"].shape == (None, 6, 6, 5)
    assert "With the block" in capsys.readouterr().out


def test_resnet50_with_a_volumetric_transformer(run):
    names = run("resnet50_with_a_volumetric_transformer")
    assert set(names["classifier"].output) == {"logits", "embedding", "fields"}
    assert np.isfinite(names["answers"]["logits"]).all()
    assert np.abs(names["answers"]["fields"]).max() > 0


def test_patches_for_faster_inference(run):
    names = run("patches_for_faster_inference")
    assert 0 < names["spent"] < names["full"]
    assert names["answers"]["valid"].any(axis=1).all()


def test_explain_any_model(run, capsys):
    names = run("explain_any_model")
    for name, maps in names["maps"].items():
        assert maps.shape == (2, 64, 64), name
        assert 0 <= maps.min() and maps.max() <= 1, name
    assert "occlusion" in capsys.readouterr().out


@pytest.mark.skipif(
    keras.version().startswith("3.10."),
    reason="metrics of Keras 3.10 are named by layers, not by outputs",
)
def test_all_methods_in_one_model(run):
    names = run("all_methods_in_one_model")
    model, answers = names["model"], names["answers"]
    layers = {type(layer).__name__ for layer in layers_of(model)}
    assert layers >= {
        "AttentionMaskedResidual",
        "ClassEmbedding",
        "LocalizePatches",
        "VolumetricTransformer",
    }
    assert np.exp(answers["logits"]).sum(-1) == pytest.approx(1, abs=1e-4)
    # Every weight learns, but those behind the attention that is all that is asked of
    # the transformer's last block.
    images, labels = names["train"][0][:8], names["train"][1][:8]
    targets = dict.fromkeys(model.output, labels)
    before = [np.array(weight) for weight in model.trainable_weights]
    model.train_on_batch(images, targets)
    still = [
        weight.path
        for weight, old in zip(model.trainable_weights, before, strict=True)
        if np.array_equal(keras.ops.convert_to_numpy(weight), old)
    ]
    assert still and all(path.startswith("block_2/") for path in still), still
