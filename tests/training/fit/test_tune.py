"""The search of hyperparameters: its space, its stages, and its resumption."""

import csv
import json
import math
import pathlib

import keras
import pytest

from keras_attn.training import cli
from keras_attn.training.fit import tune as tune_module
from keras_attn.training.fit.callbacks import NotFiniteError
from keras_attn.training.fit.tune import default_space, parse_space, tune
from keras_attn.training.methods import class_embedding
from keras_attn.training.recipes.registry import RECIPES
from keras_attn.training.recipes.schema import apply_overrides
from keras_attn.training.runs.run import Run
from keras_attn.training.runs.state import load_progress
from tests.data.a8c9ace.models import NEEDS_KERAS
from tests.training.tiny import tiny_model, tiny_recipe

RECIPE = tiny_recipe(epochs=1, row="baseline")
OLD_RUNS = pathlib.Path(__file__).parents[2] / "data" / "a8c9ace" / "runs"
SPACE = ("learning_rate=1e-4:1e-2", "batch_size=5,10")


def test_space():
    fields = parse_space(RECIPE, [*SPACE, "schedule=steps,cosine"])
    assert [(field.name, field.values, field.is_range) for field in fields] == [
        ("learning_rate", ("1e-4", "1e-2"), True),
        ("batch_size", ("5", "10"), False),
        ("schedule", ("steps", "cosine"), False),
    ]
    # The sixth part of two decades to each side, and not beyond the ends.
    step = 10 ** (2 / 6)
    centre, *near = fields[0].around("0.001")
    assert centre == "0.001"
    assert list(map(float, near)) == pytest.approx([1e-3 / step, 1e-3 * step], rel=5e-3)
    near = list(map(float, fields[0].around("0.0001")))
    assert near == pytest.approx([1e-4, 1e-4 * step], rel=5e-3)
    assert fields[1].around("5") == ("5",)
    for recipe in RECIPES.values():
        assert parse_space(recipe, default_space(recipe))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("learning_rate", "NAME=LOW:HIGH"),
        ("learning_rate=", "NAME=LOW:HIGH"),
        ("learning_rate=1e-4:", "NAME=LOW:HIGH"),
        ("learning_rate=1:2:3", "NAME=LOW:HIGH"),
        ("learning_rate=1e-2:1e-4", "from a positive number up"),
        ("weight_decay=0:1e-4", "from a positive number up"),
        ("lerning_rate=1,2", "Did you mean 'learning_rate'"),
        ("learning_rate=-1,2", "a positive number"),
        ("batch_size=4:8", "a range of a field with fractions"),
        ("decay_at=0.1,0.2", "a list of single values"),
        ("split=official,45k_5k", "fields of the training"),
        ("seed=1,2", "fields of the training"),
    ],
)
def test_mistakes_in_the_space(text, words):
    with pytest.raises(ValueError, match=words):
        parse_space(RECIPE, [text])


@pytest.fixture
def trained(monkeypatch):
    """The trainings so far, in order, and the number of trainings until one stops."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("training is on TensorFlow")
    done, stops = [], []

    def train(recipe, workdir, **options):
        if stops and len(done) == stops[0]:
            raise stops[1]
        # Accuracy is best at 1e-3, a value that the grid alone comes close to.
        run = Run.create(workdir, recipe)
        score = 1 - abs(math.log10(recipe.learning_rate / 1e-3))
        known[run.workdir] = 100 * (score - 0.1 * (recipe.batch_size == 5))
        done.append((recipe.learning_rate, recipe.batch_size))
        return run

    known = {}
    monkeypatch.setattr(tune_module, "accuracy_of", lambda run: known[run.workdir])
    monkeypatch.setattr(tune_module, "train", train)
    return done, stops


def search(folder, **options):
    return tune(RECIPE, folder, report=lambda line: None, space=SPACE, **options)


def lines_of(folder):
    with open(folder / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_random_trials_then_a_grid_around_the_best(tmp_path, trained):
    done, _ = trained
    summary = search(tmp_path / "tuned", trials=4, grid=3, seed=3)
    lines = lines_of(tmp_path / "tuned")
    assert [line["stage"] for line in lines] == ["random"] * 4 + ["grid"] * 3
    assert summary["trials"] == 7
    accuracies = [float(line["validation_accuracy"]) for line in lines]
    best = lines[accuracies.index(max(accuracies))]
    assert summary["validation_accuracy"] == pytest.approx(max(accuracies), abs=1e-4)
    assert summary["overrides"] == [
        f"learning_rate={best['learning_rate']}",
        f"batch_size={best['batch_size']}",
    ]
    best_random = lines[accuracies.index(max(accuracies[:4]))]
    around = [float(line["learning_rate"]) for line in lines[4:]]
    assert around[0] == float(best_random["learning_rate"])
    assert around[1] < around[0] < around[2]
    assert {line["batch_size"] for line in lines[4:]} == {best_random["batch_size"]}
    # The centre of the grid is known from the random trials.
    assert len(done) == 6
    assert all(1e-4 <= rate <= 1e-2 and size in (5, 10) for rate, size in done)
    saved = json.loads((tmp_path / "tuned" / "best.json").read_text())
    assert saved == summary
    assert apply_overrides(RECIPE, saved["overrides"]).learning_rate == float(
        best["learning_rate"]
    )
    text = (tmp_path / "tuned" / "trials.md").read_text()
    assert text.splitlines()[6].endswith(f"| {max(accuracies):.4f} |")


def test_an_interrupted_search_resumes(tmp_path, trained):
    done, stops = trained
    whole = search(tmp_path / "whole", trials=4, grid=3)
    expected = lines_of(tmp_path / "whole")
    for after in (2, 5):
        done.clear()
        stops[:] = [after, KeyboardInterrupt()]
        folder = tmp_path / f"after {after}"
        with pytest.raises(KeyboardInterrupt):
            search(folder, trials=4, grid=3)
        kept = lines_of(folder)
        assert kept == expected[: len(kept)] and len(kept) >= after
        stops.clear()
        assert search(folder, trials=4, grid=3) == whole
        assert lines_of(folder) == expected and len(done) == 6
    before = len(done)
    assert search(folder, trials=4, grid=3) == whole and len(done) == before
    with pytest.raises(ValueError, match="no more random trials than the 4.*trials=5"):
        search(folder, trials=5, grid=3)
    with pytest.raises(ValueError, match="search with another seed"):
        search(folder, trials=4, grid=3, seed=1)
    # As KerasTuner, which made the searches of earlier versions, described them.
    description = json.loads((folder / "search.json").read_text())
    del description["version"]
    (folder / "search.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match="search with another version"):
        search(folder, trials=4, grid=3)


def test_a_table_of_something_else_is_refused(tmp_path, trained):
    search(tmp_path / "tuned", trials=1, grid=0)
    (tmp_path / "tuned" / "trials.csv").write_text("stage,trial\nrandom,000\n")
    with pytest.raises(ValueError, match="trials.csv is not a table"):
        search(tmp_path / "tuned", trials=1, grid=0)


def test_no_trial_is_drawn_twice(tmp_path, trained):
    options = {"trials": 9, "grid": 0, "space": ["batch_size=5,10", "epochs=1,2"]}
    summary = tune(RECIPE, tmp_path / "tuned", report=lambda line: None, **options)
    assert summary["trials"] == 4
    lines = lines_of(tmp_path / "tuned")
    made = [(line["batch_size"], line["epochs"]) for line in lines]
    assert sorted(made) == [("10", "1"), ("10", "2"), ("5", "1"), ("5", "2")]


def test_random_trials_are_added_before_the_grid(tmp_path, trained):
    done, _ = trained
    search(tmp_path / "tuned", trials=2, grid=0)
    before = lines_of(tmp_path / "tuned")
    assert search(tmp_path / "tuned", trials=4, grid=0)["trials"] == 4
    assert lines_of(tmp_path / "tuned")[:2] == before and len(done) == 4


def test_trials_may_fail(tmp_path, trained):
    done, stops = trained
    stops[:] = [0, NotFiniteError("infinite")]
    with pytest.raises(ValueError, match="Expected a trial that succeeds.*3 trials"):
        search(tmp_path / "tuned", trials=3, grid=3)
    assert {line["validation_accuracy"] for line in lines_of(tmp_path / "tuned")} == {
        ""
    }
    stops[:] = [0, OSError("disk full")]
    with pytest.raises(OSError, match="disk full"):
        search(tmp_path / "other", trials=3, grid=3)


def test_a_search_that_trains(tmp_path, monkeypatch, capsys):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("training is on TensorFlow")
    monkeypatch.setattr(class_embedding, "build_model", tiny_model)
    folder = tmp_path / "tuned"
    arguments = ["tune", "generated_rn26_baseline", "--workdir", str(folder)]
    arguments += ["--trials", "1", "--grid", "1", "--search", SPACE[0], "--set"]
    arguments += ["epochs=1", "examples=130", "batch_size=10", "deterministic=false"]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    best = json.loads((folder / "best.json").read_text())
    setting = best["overrides"][0]
    assert f"keras-attn train generated_rn26_baseline --set {setting}" in out
    (run,) = (folder / "runs").glob("random-*")
    run = Run.open(run)
    logs = load_progress(run.checkpoints / "last.npz").history[-1]
    wanted = pytest.approx(100 * logs["val_accuracy"], abs=1e-4)
    assert best["validation_accuracy"] == wanted
    assert run.recipe == apply_overrides(
        RECIPES["generated_rn26_baseline"], [*arguments[-4:], setting]
    )


def test_what_cannot_be_searched(tmp_path):
    with pytest.raises(ValueError, match="at least one random trial.*trials=0"):
        tune(RECIPE, tmp_path / "tuned", trials=0)
    with pytest.raises(ValueError, match="--set map_model=RUN"):
        tune(RECIPES["generated_resnet8_a1"], tmp_path / "tuned")
    with pytest.raises(ValueError, match="at most the .* images.*batch_size=999"):
        tune(RECIPE, tmp_path / "tuned", space=["batch_size=5,999"])
    assert not list(tmp_path.iterdir())
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        tune(RECIPE, tmp_path)


@NEEDS_KERAS
@pytest.mark.parametrize(
    "name, watched",
    [
        ("class_embedding", "val_logits_accuracy"),
        ("full", "val_accuracy"),
        ("dino", "val_knn_accuracy"),
    ],
)
def test_every_method_has_its_accuracy(name, watched):
    run = Run.open(OLD_RUNS / name)
    (logs,) = load_progress(run.checkpoints / "last.npz").history
    assert tune_module.accuracy_of(run) == 100 * logs[watched]
    # DINO's rate does not drop in steps.
    fields = [
        field.name for field in parse_space(run.recipe, default_space(run.recipe))
    ]
    assert ("decay_factor" in fields) == (name != "dino")
