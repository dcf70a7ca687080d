import dataclasses
import shutil

import keras
import numpy as np
import pytest

from keras_attn.metrics import knn_accuracy
from keras_attn.models.vit import VIT_SIZES
from keras_attn.pipelines.batches.multi_crop import MultiCrop
from keras_attn.pipelines.sources.load import SOURCE_NAMES, load_source
from keras_attn.pipelines.sources.splits import SPLIT_NAMES
from keras_attn.training.data.load import load_data
from keras_attn.training.fit import callbacks
from keras_attn.training.fit.train import train, trainable_model
from keras_attn.training.methods import dino
from keras_attn.training.methods.feeds.views import multi_crop
from keras_attn.training.recipes.dino import RECIPES
from keras_attn.training.recipes.registry import get_recipe
from keras_attn.training.recipes.schema import Recipe, apply_overrides
from keras_attn.training.runs import state
from keras_attn.training.runs.run import Run
from tests.training.tiny_dino import TINY_SIZE, tiny_recipe

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="training is on TensorFlow"
)


@pytest.fixture(scope="module")
def source():
    return load_source("generated", examples=130, image_size=32)


@pytest.fixture(autouse=True)
def tiny_transformer(monkeypatch):
    monkeypatch.setitem(VIT_SIZES, "tiny", TINY_SIZE)


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path, source, monkeypatch):
    recipe = tiny_recipe()
    original = callbacks.Checkpoint.on_epoch_begin

    def keep(self, epoch, logs=None):
        if epoch == 1:
            # What a training that is stopped here leaves.
            shutil.copytree(tmp_path / "whole", tmp_path / "broken")
        original(self, epoch, logs)

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.Checkpoint, "on_epoch_begin", keep)
        whole = train(recipe, tmp_path / "whole", source=source, verbose=0)
    kept = state.load_progress(tmp_path / "broken" / "checkpoints" / "last.npz")
    assert kept.epochs == 1
    broken = train(recipe, tmp_path / "broken", source=source, verbose=0)

    states = []
    for run in (whole, broken):
        with np.load(run.checkpoints / "last.npz") as saved:
            states.append({name: saved[name] for name in saved.files})
    assert states[0].keys() == states[1].keys()
    for name in states[0].keys() - {"progress"}:
        np.testing.assert_allclose(
            states[0][name], states[1][name], atol=1e-5, err_msg=name
        )
    histories = [
        state.load_progress(run.checkpoints / "last.npz").history
        for run in (whole, broken)
    ]
    for logs in zip(*histories, strict=True):
        assert logs[0].keys() == logs[1].keys() >= {"loss", dino.WATCHED}
        assert logs[0] == pytest.approx(logs[1], abs=1e-4)
    _check_run(whole, recipe, source, histories[0])


def _check_run(run, recipe, source, history):
    """The run holds the teacher, as accurate as its history, and a card."""
    card = (run.workdir / "card.md").read_text()
    accuracy = 100 * history[-1][dino.WATCHED]
    assert f"neighbours, last epoch: {accuracy:.2f} %" in card
    assert Run.open(run.workdir).recipe == recipe
    network = run.load_model("last")
    assert set(network.output) == {"embedding", "tokens"}
    spec, splits = load_data(recipe, source=source)
    assert run.spec("last") == spec
    train, validation = (
        (dino.embeddings(network, images), labels)
        for images, labels in (splits["train"], splits["validation"])
    )
    assert train[0].shape == (len(splits["train"][1]), 8)
    found = knn_accuracy(*validation, *train, k=5)
    assert found == pytest.approx(history[-1][dino.WATCHED], abs=0.02)
    assert history[-1]["learning_rate"] < history[0]["learning_rate"]
    for logs in history:
        assert logs["loss"] >= logs["teacher_entropy"] - 1e-4
    # It is the teacher of the state, which also resumes from there.
    model = trainable_model(recipe, spec, 3)
    state.restore_state(run.checkpoints / "last.npz", model)
    for one, two in zip(network.weights, model.teacher.weights, strict=True):
        np.testing.assert_array_equal(one, two)
    student = model.student.weights[0].numpy()
    assert np.abs(student - model.teacher.weights[0].numpy()).max() > 0


def test_another_recipe_cannot_resume_in_the_folder(tmp_path):
    Run.create(tmp_path / "run", tiny_recipe())
    with pytest.raises(ValueError, match="units=12 there, 13 now"):
        train(tiny_recipe(units=13), tmp_path / "run")


@pytest.mark.parametrize(
    "changes",
    [
        {"patch_size": 5},
        {"warmup_epochs": 2},
        {"size": "huge"},
        {"epochs": 0},
        {"teacher_momentum": 1.0},
        {"seed": -1},
        {"weight_decay": float("nan")},
        {"smallest_local": 0.4},
        {"grey": 1.5},
    ],
)
def test_recipes_that_make_no_sense(changes):
    field = next(iter(changes))
    with pytest.raises(ValueError, match=f"Expected {field} of .*Received: {field}="):
        tiny_recipe(**changes)


def test_recipes_are_plain_data():
    recipe = tiny_recipe()
    assert Recipe.from_json(recipe.to_json()) == recipe
    changes = ["local_views=3", "size=base", "smallest_local=0.1", "grey=0.9"]
    changed = apply_overrides(recipe, changes)
    assert changed == dataclasses.replace(
        recipe, local_views=3, size="base", smallest_local=0.1, grey=0.9
    )
    crop = multi_crop(changed.options)
    assert (crop.global_size, crop.local_size, crop.local_views) == (16, 8, 3)
    assert crop.local_area == (0.1, 0.4) and crop.grey == 0.9


def test_named_recipes():
    for recipe in RECIPES:
        assert recipe.dataset in SOURCE_NAMES
        assert recipe.split in SPLIT_NAMES
    crop = multi_crop(get_recipe("imagenet_vit_small_16_dino").options)
    assert crop == MultiCrop()
