"""Rows and seeds of an experiment, interrupted and taken up again."""

import dataclasses
import shutil

import matplotlib.image
import pytest

from keras_attn.training.data.load import load_data
from keras_attn.training.experiments import features, figures, reproduce, results
from keras_attn.training.fit.train import train
from keras_attn.training.methods import class_embedding
from keras_attn.training.recipes.experiment import Experiment, Row
from keras_attn.training.recipes.registry import get_experiment
from keras_attn.training.runs.state import load_progress
from tests.training.tiny import tiny_model, tiny_recipe

NAME = "class_embedding_table1_generated"


def rows():
    return tuple(
        Row(label, tiny_recipe(name=f"tiny_{label}", row=label, epochs=1), paper)
        for label, paper in (("baseline", 50.0), ("class_embedding", None))
    )


TINY = Experiment("class_embedding", "table1", "generated", "Tiny", rows())


@pytest.fixture(scope="module")
def finished():
    """Folders of finished runs by recipe, which no test trains again."""
    return {}


@pytest.fixture(autouse=True)
def trained(monkeypatch, finished):
    """The folders that were trained, in order, and those whose training stops."""
    done, bad = [], []

    def train_tiny(recipe, workdir, **options):
        name = f"{workdir.parent.name}/{workdir.name}"
        if name in bad:
            raise KeyboardInterrupt
        before = load_progress(workdir / "checkpoints" / "last.npz").epochs
        known = finished.setdefault(recipe.to_json(), workdir)
        if known != workdir and not before:
            shutil.copytree(known, workdir)
        run = train(recipe, workdir, verbose=0, **options)
        if before < recipe.epochs:
            done.append(name)
        return run

    monkeypatch.setattr(class_embedding, "build_model", tiny_model)
    monkeypatch.setattr(reproduce, "train", train_tiny)
    monkeypatch.setattr(reproduce, "get_experiment", {NAME: TINY}.__getitem__)
    return done, bad


def call(tmp_path, **options):
    folders = {"workdir": tmp_path / "runs", "results_folder": tmp_path / "results"}
    return reproduce.reproduce(NAME, **folders, **options)


def test_an_interrupted_comparison_resumes_where_it_stopped(tmp_path, trained, capsys):
    done, bad = trained
    bad.append("class_embedding/seed-0")
    with pytest.raises(KeyboardInterrupt):
        call(tmp_path, seeds=2)
    assert done == ["baseline/seed-0"]
    path = tmp_path / "results" / f"{NAME}.csv"
    assert len(results.read_rows(path)) == 1

    bad.clear()
    assert call(tmp_path, seeds=2) == path
    assert done == [
        "baseline/seed-0",
        "class_embedding/seed-0",
        "baseline/seed-1",
        "class_embedding/seed-1",
    ]
    lines = results.read_rows(path)
    assert [(line["row"], line["seed"]) for line in lines] == [
        ("baseline", 0),
        ("class_embedding", 0),
        ("baseline", 1),
        ("class_embedding", 1),
    ]
    for line in lines:
        assert line["metric"] == "test_accuracy" and 0 <= line["value"] <= 100
        assert line["epochs"] == 1 and line["seconds"] > 0
        assert line["paper_value"] == (50.0 if line["row"] == "baseline" else None)
    text = path.with_suffix(".md").read_text()
    assert f"keras-attn reproduce {NAME} --seeds 2" in text and "| 0, 1 |" in text
    assert path.with_suffix(".png").exists()

    # Nothing is trained and nothing changes when all of it is there.
    before = path.read_bytes()
    capsys.readouterr()
    call(tmp_path, seeds=2)
    assert len(done) == 4 and path.read_bytes() == before
    assert capsys.readouterr().out.count("recorded in") == 4

    # The value is the accuracy of the last model on the test images.
    run = tmp_path / "runs" / NAME / "baseline" / "seed-1"
    opened = reproduce.Run.open(run)
    images, labels = load_data(opened.recipe)[1]["test"]
    logits = opened.load_model("last").predict(images, verbose=0)["logits"]
    accuracy = 100 * (logits.argmax(-1) == labels).mean()
    assert lines[2]["value"] == pytest.approx(accuracy, abs=1e-3)

    # A run that is finished but not recorded is measured, not trained.
    results.write_rows(path, lines[1:])
    call(tmp_path, seeds=2)
    assert len(done) == 4 and len(results.read_rows(path)) == 4

    # Another recipe does not go into the same folders.
    with pytest.raises(ValueError, match="batch_size=10 there, 5 now"):
        call(tmp_path, overrides=["batch_size=5"])


def test_unknown_rows_and_keys_train_nothing(tmp_path, trained):
    with pytest.raises(ValueError, match="baseline, class_embedding. Received: aux"):
        call(tmp_path, rows=["baseline", "aux"])
    with pytest.raises(ValueError, match="'epochs'"):
        call(tmp_path, overrides=["epoch=3"])
    assert trained[0] == [] and not list(tmp_path.iterdir())


def test_a_figure_of_runs_that_another_experiment_trained(
    tmp_path, trained, monkeypatch
):
    monkeypatch.setattr(figures, "REQUIREMENTS", {})
    monkeypatch.setattr(features, "projected", lambda points: points[:, :2])
    experiments = {
        NAME: TINY,
        "figure": dataclasses.replace(
            TINY,
            table="figure5",
            measure="same_class_neighbours",
            figure="tsne",
            runs_of=NAME,
        ),
    }
    monkeypatch.setattr(reproduce, "get_experiment", experiments.__getitem__)
    monkeypatch.setattr(features, "IMAGES_PER_CLASS", 2)
    done, _ = trained
    folders = {"workdir": tmp_path / "runs", "results_folder": tmp_path / "results"}
    reproduce.reproduce(NAME, **folders, rows=["baseline"])
    path = reproduce.reproduce("figure", **folders)
    assert path.name == "class_embedding_figure5_generated.csv"
    assert done == ["baseline/seed-0", "class_embedding/seed-0"]
    lines = results.read_rows(path)
    assert [line["row"] for line in lines] == ["baseline", "class_embedding"]
    assert {line["metric"] for line in lines} == {"same_class_neighbours"}
    # Three panels side by side.
    height, width, _ = matplotlib.image.imread(path.with_suffix(".png")).shape
    assert width > 2 * height
    text = path.with_suffix(".md").read_text()
    assert f"block output: {lines[1]['value']:.2f} % same-class" in text
    assert "class_embedding, stage3 output" in text

    # Drawn again only if it is lost.
    path.with_suffix(".png").unlink()
    written = path.with_suffix(".md").read_text()
    reproduce.reproduce("figure", **folders)
    assert path.with_suffix(".png").exists()
    assert path.with_suffix(".md").read_text() == written


def test_figure5_shares_the_runs_of_table1():
    figure = get_experiment("class_embedding_figure5_cifar10")
    table = get_experiment(figure.runs_of)
    known = {row.label: row.recipe for row in table.rows}
    assert [row.label for row in figure.rows] == [
        "rn26_baseline",
        "rn26_class_embedding",
    ]
    for row in figure.rows:
        assert row.recipe == known[row.label]


def test_the_command_in_the_results_names_no_place_of_this_machine(tmp_path):
    overrides = ["epochs=1", f"map_model={tmp_path}", "dataset=folder"]
    command = reproduce._command("any", str(tmp_path), 2, None, overrides)
    assert command == (
        "keras-attn reproduce any --data PATH --seeds 2 --set epochs=1 "
        "--set map_model=PATH --set dataset=folder"
    )
