"""The search of hyperparameters: at random, then on a grid around the best.

What "Refining Residual Mappings Using Regions of High Attention" does in section 5.1,
for the fields of any recipe. Candidates are compared by the accuracy on the validation
images after the last epoch; test images are not looked at.
"""

import contextlib
import csv
import dataclasses
import io
import json
import math
import pathlib
import warnings

from keras_attn.pipelines.files import write_then_rename
from keras_attn.training.data.load import load_data, load_source_of
from keras_attn.training.fit.callbacks import NotFiniteError
from keras_attn.training.fit.train import train
from keras_attn.training.methods import method_of
from keras_attn.training.recipes.assignments import split_assignment
from keras_attn.training.recipes.schema import apply_overrides
from keras_attn.training.runs.state import load_progress

# Searched by default; those of section 5.1 and how far the rate drops.
SPACE = (
    "learning_rate=1e-4:1e-2",
    "weight_decay=1e-5:1e-2",
    "decay_factor=0.1,0.2,0.5",
    "batch_size=64,128,256",
)
# They decide what is judged on which images, so candidates would not be comparable.
FIXED = (
    "name",
    "method",
    "dataset",
    "split",
    "split_seed",
    "image_size",
    "crop_fraction",
    "examples",
    "difficulty",
    "seed",
)
# Neighbours of the best on the grid are so many times closer than the ends of a range.
GRID_STEPS = 6
SEARCH, RESULTS, BEST = "search.json", "trials.csv", "best.json"
OBJECTIVE = "validation_accuracy"


@dataclasses.dataclass(frozen=True)
class Field:
    """What a field of a recipe may be: from a range, even in its logarithm, or a list.

    Args:
        name: Of the field.
        values: The list, or the two ends of the range.
        is_range: Which of both.
    """

    name: str
    values: tuple
    is_range: bool

    def around(self, value):
        """The list with the neighbours of a value of a range; else the value alone."""
        if not self.is_range:
            return Field(self.name, (value,), False)
        low, high = self.values
        step = (high / low) ** (1 / GRID_STEPS)
        near = {_short(min(max(value * step**k, low), high)) for k in (-1, 0, 1)}
        return Field(self.name, tuple(sorted(near)), False)


def parse_space(recipe, texts):
    """`Field`s from `NAME=LOW:HIGH` and `NAME=A,B,C`, checked against the recipe.

    Raises:
        ValueError: For another form, a field that is not to be searched, or a value
            that the recipe refuses.
    """
    fields = {}
    for text in texts:
        expected = "NAME=LOW:HIGH or NAME=A,B,C to search a field of the recipe"
        name, values = split_assignment(text, expected)
        ends = values.split(":")
        parts = ends if len(ends) == 2 else values.split(",")
        if "" in parts or len(ends) > 2:
            raise ValueError(f"Expected {expected}. Received: {text!r}")
        if name in FIXED or name in fields:
            raise ValueError(
                f"Expected fields of the training, each once. Received: {text!r}"
            )
        known = [
            apply_overrides(recipe, [f"{name}={part}"]).to_dict()[name]
            for part in parts
        ]
        kinds = float if len(ends) == 2 else (int, float, str, bool)
        if not all(isinstance(value, kinds) for value in known):
            raise ValueError(
                "Expected a range of a field with fractions, or a list of single "
                f"values. Received: {text!r}"
            )
        if len(ends) == 2 and not 0 < known[0] < known[1]:
            raise ValueError(
                f"Expected a range from a positive number up. Received: {text!r}"
            )
        fields[name] = Field(name, tuple(known), len(ends) == 2)
    return tuple(fields.values())


def tune(
    recipe,
    folder,
    data=None,
    trials=20,
    grid=9,
    space=SPACE,
    seed=0,
    on_corrupt="error",
    report=print,
):
    """Searches the fields of a recipe, or goes on where that stopped.

    Every trial is a run in `FOLDER/runs`. After each of them `trials.csv`, `trials.md`
    and `best.json` in the folder hold what is known. A trial whose loss becomes
    infinite counts as failed.

    Args:
        recipe: `Recipe`.
        folder: Of the search.
        data, on_corrupt: As in `keras_attn.training.fit.train.train`.
        trials: Random trials; more than before are added, unless the grid has begun.
        grid: Most trials on the grid around the best random one; 0: none.
        space: What is searched, see `parse_space`.
        seed: Of the random trials.
        report: Called with lines of text.

    Returns:
        Dict of `recipe`, `overrides` (texts for `--set`), `validation_accuracy` (in
        per cent) and `trials`.

    Raises:
        ValueError: If the space or the recipe is wrong, the folder is that of another
            search, there are no validation images, or no trial succeeded.
        ImportError: If KerasTuner is not installed.
    """
    if not method_of(recipe).classifies:
        raise ValueError(
            "Expected a recipe of a classifier, which validation images judge. "
            f"Received: {recipe.name!r}"
        )
    if trials < 1 or grid < 0 or seed < 0:
        raise ValueError(
            "Expected at least one random trial, and no fewer than 0 on the grid, and "
            f"a seed of at least 0. Received: trials={trials}, grid={grid}, seed={seed}"
        )
    fields = parse_space(recipe, space)
    method_of(recipe).check(recipe)
    tuner = _require_tuner()
    folder = pathlib.Path(folder)
    _check_folder(folder, recipe, fields, seed, trials)
    source = load_source_of(recipe, data, on_corrupt)
    spec, splits = load_data(recipe, source=source)
    if not len(splits["validation"][1]):
        raise ValueError(
            f"Expected a split with validation images. Received: {recipe.split!r} of "
            f"{recipe.dataset}"
        )
    del splits
    folder.mkdir(parents=True, exist_ok=True)
    with write_then_rename(folder / SEARCH) as file:
        file.write(_description(recipe, fields, seed).encode())
    search = _Search(recipe, folder, source.decoded(spec), report)
    search.run(tuner, "random", fields, trials, seed)
    best = search.best()
    if grid:
        near = tuple(field.around(best["values"][field.name]) for field in fields)
        search.run(tuner, "grid", near, grid, seed)
        best = search.best()
    return search.summary(best)


class _Search:
    """The trials of a search: runs them and writes down what is known."""

    def __init__(self, recipe, folder, source, report):
        self.recipe = recipe
        self.folder = folder
        self.source = source
        self.report = report
        self.rows = []

    def run(self, keras_tuner, stage, fields, trials, seed):
        """All trials of a stage; those that were made before are read."""
        parameters = keras_tuner.HyperParameters()
        for field in fields:
            if field.is_range:
                parameters.Float(field.name, *field.values, sampling="log")
            else:
                parameters.Choice(field.name, list(field.values), ordered=False)
        kind = {
            "random": keras_tuner.oracles.RandomSearchOracle,
            "grid": keras_tuner.oracles.GridSearchOracle,
        }[stage]
        oracle = kind(
            objective=keras_tuner.Objective(OBJECTIVE, "max"),
            max_trials=trials,
            # 0 would be taken for none.
            seed=seed + 1,
            hyperparameters=parameters,
            allow_new_entries=False,
            tune_new_entries=False,
            max_consecutive_failed_trials=trials + 1,
        )
        search, names = self, [field.name for field in fields]

        class RecipeTuner(keras_tuner.Tuner):
            def run_trial(self, trial, **options):
                values = {name: trial.hyperparameters.get(name) for name in names}
                try:
                    return search.trial(stage, trial.trial_id, values)
                except NotFiniteError:
                    # Counts as failed.
                    return math.nan
                except Exception as error:
                    # Only such an error ends the search of KerasTuner.
                    raise keras_tuner.errors.FatalError(str(error)) from error

        # It tells where it goes on from, in its own words.
        with contextlib.redirect_stdout(io.StringIO()):
            tuner = RecipeTuner(
                oracle, directory=str(self.folder / "tuner"), project_name=stage
            )
        for name in tuner.oracle.end_order:
            trial = tuner.oracle.trials[name]
            values = {key: trial.hyperparameters.values[key] for key in names}
            score = trial.score if trial.status == "COMPLETED" else None
            self.add(stage, name, _rounded(values), score)
        try:
            with warnings.catch_warnings():
                # Of failed trials, which are told otherwise.
                warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)
                tuner.search(verbose=0)
        except keras_tuner.errors.FatalError as error:
            raise error.__cause__ from None

    def trial(self, stage, name, values):
        """Trains a trial, or goes on, and returns its validation accuracy."""
        values = _rounded(values)
        same = [row for row in self.rows if row["values"] == values]
        try:
            score = same[0][OBJECTIVE] if same else self._trained(stage, name, values)
        except NotFiniteError:
            score = None
        self.add(stage, name, values, score)
        if score is None:
            raise NotFiniteError(f"Trial {name} diverged.")
        return score

    def add(self, stage, name, values, score):
        """Writes down what a trial has reached; `None` for a failed one."""
        row = {"stage": stage, "trial": name, "values": values, OBJECTIVE: score}
        self.rows.append(row)
        self._write()

    def _trained(self, stage, name, values):
        settings = " ".join(overrides(values))
        recipe = apply_overrides(self.recipe, overrides(values))
        if self._progress(stage, name).epochs < recipe.epochs:
            self.report(f"{stage} {name}: {settings}")
        train(recipe, self._workdir(stage, name), source=self.source)
        logs = self._progress(stage, name).history[-1]
        (found,) = (
            logs[key] for key in ("val_logits_accuracy", "val_accuracy") if key in logs
        )
        self.report(f"{stage} {name}: {settings}: {100 * found:.2f} %")
        return 100 * found

    def _workdir(self, stage, name):
        return self.folder / "runs" / f"{stage}-{name}"

    def _progress(self, stage, name):
        return load_progress(self._workdir(stage, name) / "checkpoints" / "last.npz")

    def best(self):
        known = [row for row in self.rows if row[OBJECTIVE] is not None]
        if not known:
            raise ValueError(
                f"Expected a trial that succeeds. Received: {len(self.rows)} trials in "
                f"{self.folder} whose loss became infinite"
            )
        return max(known, key=lambda row: row[OBJECTIVE])

    def summary(self, best):
        return {
            "recipe": self.recipe.name,
            "overrides": overrides(best["values"]),
            OBJECTIVE: best[OBJECTIVE],
            "trials": len(self.rows),
        }

    def _write(self):
        names = list(self.rows[0]["values"])
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["stage", "trial", *names, OBJECTIVE])
        table = [
            [row["stage"], row["trial"], *row["values"].values(), _number(row)]
            for row in self.rows
        ]
        writer.writerows(table)
        _write(self.folder / RESULTS, text.getvalue())
        table.sort(key=lambda line: -float(line[-1] or -1))
        lines = [
            f"# Hyperparameters of {self.recipe.name}",
            "",
            "Accuracy on the validation images after the last epoch, per cent.",
            "",
            "| " + " | ".join(["stage", "trial", *names, "accuracy"]) + " |",
            "|---" * (len(names) + 3) + "|",
            *("| " + " | ".join(map(str, line)) + " |" for line in table),
        ]
        _write((self.folder / RESULTS).with_suffix(".md"), "\n".join(lines) + "\n")
        if any(row[OBJECTIVE] is not None for row in self.rows):
            best = json.dumps(self.summary(self.best()), indent=2)
            _write(self.folder / BEST, best + "\n")


def overrides(values):
    """Texts for `--set`."""
    return [
        f"{name}={str(value).lower() if isinstance(value, bool) else value}"
        for name, value in values.items()
    ]


def format_summary(summary):
    """The best of a search, as the command that trains it."""
    return (
        f"Best of {summary['trials']} trials: {summary[OBJECTIVE]:.2f} % of the "
        f"validation images\nkeras-attn train {summary['recipe']} --set "
        + " ".join(summary["overrides"])
    )


def _number(row):
    return "" if row[OBJECTIVE] is None else f"{row[OBJECTIVE]:.4f}"


def _short(value):
    """Three digits of a fraction, as it is told and trained."""
    return float(f"{value:.3g}") if isinstance(value, float) else value


def _rounded(values):
    return {name: _short(value) for name, value in values.items()}


def _write(path, text):
    with write_then_rename(path) as file:
        file.write(text.encode())


def _description(recipe, fields, seed):
    described = {
        "recipe": recipe.to_dict(),
        "space": [dataclasses.asdict(field) for field in fields],
        "seed": seed,
    }
    return json.dumps(described, indent=2) + "\n"


def _check_folder(folder, recipe, fields, seed, trials):
    """That a folder is new or that of this search."""
    path = folder / SEARCH
    if not path.is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(
                "Expected a new folder or the folder of a search. "
                f"Received: {folder}, which holds something else."
            )
        return
    found = json.loads(path.read_text())
    wanted = json.loads(_description(recipe, fields, seed))
    different = [name for name in wanted if found.get(name) != wanted[name]]
    if different:
        raise ValueError(
            f"The folder {folder} belongs to a search with another "
            f"{' and '.join(different)}. Choose another --workdir."
        )
    made = len(list(folder.glob("tuner/random/trial_*")))
    if trials > made and (folder / "tuner" / "grid").exists():
        raise ValueError(
            f"Expected no more random trials than the {made} that the grid in {folder} "
            f"was made around. Received: trials={trials}. Choose another --workdir."
        )


def _require_tuner():
    try:
        import keras_tuner
    except ImportError as error:
        raise ImportError(
            "The search of hyperparameters needs KerasTuner: "
            "pip install 'keras-attn[tune]'"
        ) from error
    return keras_tuner
