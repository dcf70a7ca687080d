"""Run folders, caches and an index of commit a8c9ace, see `tests/data/a8c9ace`."""

import importlib
import json
import pathlib
import shutil
import types

import keras
import numpy as np
import pytest

from keras_attn.models.vit import VIT_SIZES
from keras_attn.training.evaluation.evaluate import evaluate
from keras_attn.training.fit.train import train
from keras_attn.training.methods import anchornet, class_embedding
from keras_attn.training.methods import attention_masked_residual as masked
from keras_attn.training.retrieval.search import Searcher
from keras_attn.training.runs.run import Run
from keras_attn.training.runs.state import load_progress
from keras_attn.training.trained import load_trained
from tests.data.a8c9ace import networks
from tests.data.a8c9ace.models import NEEDS_KERAS

FOLDER = pathlib.Path(__file__).parents[1] / "data" / "a8c9ace"
EXPECTED = json.loads((FOLDER / "runs.json").read_text())
# One of each method, and of what it is fed with.
RESUMED = (
    "class_embedding",
    "patches",
    "volumetric_transformer",
    "masked",
    "dino",
)

pytestmark = [
    NEEDS_KERAS,
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow", reason="training is on TensorFlow"
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy, since the paths in the recipes are relative and runs write."""
    copy = tmp_path_factory.mktemp("old") / "a8c9ace"
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("models*", "*.py"))
    return copy


@pytest.fixture(autouse=True)
def narrow(monkeypatch, folder):
    warped = importlib.import_module("keras_attn.models.warped_classifier")
    warp = {"volumetric_transformer": networks.volumetric_transformer}
    monkeypatch.setattr(class_embedding, "build_model", networks.class_embedding)
    monkeypatch.setattr(anchornet, "anchornet", networks.anchornet)
    monkeypatch.setattr(anchornet, "build_downstream", networks.downstream)
    narrowed = types.SimpleNamespace(builder=networks.masked_resnet)
    monkeypatch.setattr(masked, "network", lambda name, role: narrowed)
    monkeypatch.setattr(warped, "feature_backbone", networks.feature_backbone)
    monkeypatch.setattr(warped, "WARPS", {**warped.WARPS, **warp})
    monkeypatch.setitem(VIT_SIZES, "tiny", networks.VIT_SIZE)
    monkeypatch.chdir(folder)


@pytest.mark.parametrize("name", EXPECTED)
def test_an_old_run_is_as_good_as_it_was(name):
    if name == "dino":
        model = load_trained("runs/dino", "last", classifies=False).model
        assert set(model.output) == {"embedding", "tokens"}
        return
    found = evaluate(f"runs/{name}", "test", checkpoint="last")
    assert found["accuracy"] == pytest.approx(EXPECTED[name]["accuracy"])
    wanted = EXPECTED[name]["cross_entropy"]
    assert found["cross_entropy"] == pytest.approx(wanted, abs=1e-4)
    assert found["same_data"]


@pytest.mark.parametrize("name", RESUMED)
def test_an_old_run_resumes_as_it_would_have_then(name, tmp_path):
    workdir = shutil.copytree(f"runs/{name}", tmp_path / name)
    recipe = Run.open(workdir).recipe
    run = train(recipe, workdir, verbose=0)
    history = load_progress(run.checkpoints / "last.npz").history
    assert len(history) == 2
    # Batch normalisation now learns its statistics in the steps of a short training,
    # which changes the validation alone.
    expected = {
        key: value
        for key, value in EXPECTED[name]["second_epoch"].items()
        if not key.startswith("val_")
    }
    found = {key: history[1][key] for key in expected}
    assert found == pytest.approx(expected, abs=2e-3)


def test_an_old_index_is_searched_or_refused_in_one_line(folder):
    expected = json.loads((FOLDER / "hits.json").read_text())
    queries = np.array(expected["queries"], "uint8")
    model = FOLDER / "models" / "class_embedding.keras"
    try:
        found = Searcher.open(folder / "index", model).search(queries, 4)
    except ValueError as error:
        assert "\n" not in str(error) and "index" in str(error)
        return
    for hits, wanted in zip(found, expected["hits"], strict=True):
        assert [name for name, _ in hits] == [name for name, _ in wanted]
        np.testing.assert_allclose(
            [similarity for _, similarity in hits],
            [similarity for _, similarity in wanted],
            atol=1e-4,
        )
