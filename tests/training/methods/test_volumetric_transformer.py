"""The method's path from images to warped maps, with a tiny backbone."""

import importlib
import json

import keras
import numpy as np
import pytest
from keras import layers

from keras_attn.training import cli
from keras_attn.training.data.load import image_spec, load_source_of
from keras_attn.training.experiments import reproduce, results
from keras_attn.training.fit.train import train, trainable_model
from keras_attn.training.methods import volumetric_transformer as method
from keras_attn.training.methods.optimizers import LayerwiseSGD
from keras_attn.training.recipes.experiment import Experiment, Row
from keras_attn.training.recipes.schema import Recipe
from keras_attn.training.runs.outputs import outputs_of
from keras_attn.training.runs.state import load_progress
from keras_attn.training.trained import load_trained

RECIPE = {
    "name": "tiny",
    "method": "volumetric_transformer",
    "dataset": "generated",
    "split": "official",
    "backbone": "small_resnet",
    "image_size": 32,
    "examples": 130,
    "batch_size": 12,
    "images_per_class": 2,
    "epochs": 1,
    "optimizer": "sgd",
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "new_layers_rate": 5.0,
    "augmentation": "rotate_crop_flip",
    "deterministic": False,
    "groups": 4,
    "window": 3,
}
WARPED = {
    "deformation": "volumetric_transformer",
    "consistency_weight": 0.1,
    "consistency_margin": 2.0,
}


def tiny_backbone(name, inputs, **options):
    del name, options
    x = layers.Conv2D(8, 8, 4, activation="relu", name="stem")(inputs)
    return layers.Conv2D(8, 3, activation="relu", name="last")(x)


@pytest.fixture(scope="module", autouse=True)
def tiny():
    # Its function has the module's name in `keras_attn.models`.
    models = importlib.import_module("keras_attn.models.warped_classifier")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "feature_backbone", tiny_backbone)
        yield


def recipe(row="none", **changes):
    return Recipe(**{**RECIPE, "row": row, **changes})


@pytest.fixture(scope="module")
def source():
    return load_source_of(recipe())


@pytest.fixture(scope="module")
def runs(tmp_path_factory, source):
    """A plain network, and one with a warp that starts from it."""
    folder = tmp_path_factory.mktemp("runs") / "tiny_runs"
    plain = train(recipe(), folder / "none" / "seed-0", source=source)
    warped = train(
        recipe("vtn", initial=str(plain.workdir), **WARPED),
        folder / "vtn" / "seed-0",
        source=source,
    )
    return plain, warped


def test_losses_are_weighted_as_the_recipe_says(source):
    spec = image_spec(recipe(), source)
    model = trainable_model(recipe(**WARPED), spec, 10)
    compiled = method.METHOD.losses(recipe(**WARPED), model)
    assert compiled["loss_weights"] == {"logits": 1.0, "warped": 0.1}
    images = np.concatenate([source.images[:4]] * 2)
    labels = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    outputs = dict.fromkeys(model.output, labels)
    logs = model.test_on_batch(images, outputs, return_dict=True)
    together = logs["logits_loss"] + 0.1 * logs["warped_loss"]
    assert logs["loss"] == pytest.approx(together, rel=1e-3)


def test_new_layers_learn_faster(source):
    spec = image_spec(recipe(), source)
    model = trainable_model(recipe(**WARPED), spec, 10)
    assert isinstance(model.optimizer, LayerwiseSGD)
    assert set(model.optimizer.factors.values()) == {5.0}
    named = {weight.path.split("/")[0] for weight in model.trainable_variables}
    assert named - set(model.optimizer.factors) == {"stem", "last"}


def test_the_warped_network_starts_from_the_plain_one(runs, source, capsys):
    plain, warped = runs
    spec = image_spec(recipe(), source)
    model = trainable_model(warped.recipe, spec, 10, print)
    said = capsys.readouterr().out
    assert f"Initial weights: {plain.workdir}" in said and " weights" in said
    trained = keras.saving.load_model(plain.model_path("best"), compile=False)
    for layer in ("stem", "last", "logits"):
        for ours, theirs in zip(
            model.get_layer(layer).get_weights(),
            trained.get_layer(layer).get_weights(),
            strict=True,
        ):
            np.testing.assert_array_equal(ours, theirs)


def test_the_card_says_what_the_training_started_from(runs):
    plain, warped = ((run.workdir / "card.md").read_text() for run in runs)
    assert "- Initial weights: random\n" in plain
    assert f"- Initial weights: {runs[0].workdir}, SHA-256 " in warped
    assert "- Data set: generated, split official\n" in warped
    history = load_progress(runs[1].checkpoints / "last.npz").history
    accuracy = 100 * history[-1]["val_logits_accuracy"]
    assert f"last epoch: {accuracy:.2f} %" in warped


def test_the_served_model_has_fields_and_embeddings(runs, source):
    model = load_trained(runs[1].workdir).model
    outputs = outputs_of(model, source.images[:3])
    assert set(outputs) == {"logits", "embedding", "fields"}
    assert outputs["fields"].shape == (3, 5, 5, 4, 2)
    assert set(load_trained(runs[0].workdir).model.output) == {"logits", "embedding"}


def test_the_commands_work_on_it(runs, tmp_path, capsys):
    images = tmp_path / "photos"
    images.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (1, 40, 50, 3))
    for number, image in enumerate(pixels.astype("uint8")):
        keras.utils.save_img(images / f"{number}.png", image, scale=False)
    workdir, output = str(runs[1].workdir), str(tmp_path / "explained")
    assert cli.main(["evaluate", workdir, "--json"]) == 0
    assert 0 <= json.loads(capsys.readouterr().out)["accuracy"] <= 1
    assert cli.main(["explain", workdir, str(images), "--output", output]) == 0
    assert len(list((tmp_path / "explained").glob("*.png"))) == 2


def test_studies_measure_the_runs_of_a_table(runs, source, tmp_path, monkeypatch):
    rows = tuple(Row(run.recipe.row, run.recipe) for run in runs)
    for study in ("retrieval", "part_alignment"):
        experiment = Experiment(
            "volumetric_transformer",
            study,
            "generated",
            "Tiny",
            rows,
            study=study,
            runs_of="tiny_runs",
        )
        monkeypatch.setattr(reproduce, "get_experiment", lambda _, e=experiment: e)
        monkeypatch.setattr(reproduce, "load_source_of", lambda recipe, **_: source)
        path = reproduce.reproduce(
            "tiny",
            workdir=runs[0].workdir.parents[2],
            results_folder=tmp_path / "results",
        )
        lines = results.read_rows(path)
        assert {line["row"] for line in lines} == {"none", "vtn"}
        assert all(np.isfinite(float(line["value"])) for line in lines)


def test_recipe_refuses_what_cannot_be():
    with pytest.raises(
        ValueError, match="images_per_class .* divisor of batch_size=12"
    ):
        recipe(images_per_class=5)
    with pytest.raises(ValueError, match="new_layers_rate .* 1 with adam"):
        recipe(optimizer="adam")
