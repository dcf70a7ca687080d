"""Trains the rows of a table or figure of a paper and writes their results."""

import dataclasses
import functools
import pathlib
import shlex
from collections.abc import Callable

import keras

from keras_attn.pipelines.images.streaming import load_images
from keras_attn.training.data.load import image_spec, load_data, load_source_of
from keras_attn.training.experiments import (
    features,
    figures,
    measures,
    results,
    studies,
    tables,
)
from keras_attn.training.fit.train import train
from keras_attn.training.methods import method_of
from keras_attn.training.recipes.experiment import Experiment
from keras_attn.training.recipes.registry import get_experiment
from keras_attn.training.recipes.schema import apply_overrides
from keras_attn.training.runs.environment import commit, hardware, versions
from keras_attn.training.runs.run import Run
from keras_attn.training.runs.state import load_progress

PICTURES = {**features.PICTURES, **figures.PICTURES}


def reproduce(
    name,
    data=None,
    workdir="runs",
    results_folder="results",
    seeds=1,
    rows=None,
    overrides=(),
    on_corrupt="error",
):
    """Trains every row for every seed, all with the same recipe otherwise.

    Seeds are the outer loop, so that an interrupted comparison has the same seeds for
    all rows. A run that is finished and recorded is not repeated, and an unfinished
    one goes on where it stopped.

    Args:
        name: Name of the experiment, `METHOD_TABLE_DATASET`.
        data: Path of the data.
        workdir: Runs go to `WORKDIR/NAME/ROW/seed-N`; where an experiment shares its
            runs with another one, NAME is the other's.
        results_folder: The CSV, Markdown table and plot go here.
        seeds: Number of seeds, 0, 1, ...
        rows: Labels of the rows to train; all by default.
        overrides: `key=value` changes to every row's recipe.
        on_corrupt: `"error"` or `"skip"`.

    Returns:
        Path of the CSV file.
    """
    experiment = get_experiment(name)
    if experiment.picture in features.PICTURES:
        features.require_scikit_learn()
    chosen = _choose(experiment, rows)
    comparison = Comparison(
        experiment,
        {row.label: apply_overrides(row.recipe, overrides) for row in chosen},
        pathlib.Path(workdir) / (experiment.runs_of or name),
        results.results_path(
            results_folder, experiment.method, experiment.table, experiment.dataset
        ),
        _command(name, data, seeds, rows, overrides),
        functools.partial(load_source_of, data=data, on_corrupt=on_corrupt),
    )
    for row in chosen:
        recipe = comparison.recipe(row, 0)
        method_of(recipe).check(recipe)
    measured = 0
    for seed in range(seeds):
        for row in chosen:
            measured += comparison.train_and_measure(row, seed)
        if experiment.study:
            comparison.study(chosen, seed)
    if not experiment.picture:
        comparison.report()
    elif measured or not comparison.path.with_suffix(".png").exists():
        comparison.draw(chosen)
    return comparison.path


@dataclasses.dataclass
class Comparison:
    """An experiment that is being made.

    Args:
        experiment: `Experiment`.
        recipes: Dict from the rows' labels to recipes, with all overrides.
        folder: Of the runs, `FOLDER/ROW/seed-N`.
        path: Of the results.
        command: That makes the same again.
        load: Function from a recipe to its `Source`.
    """

    experiment: Experiment
    recipes: dict
    folder: pathlib.Path
    path: pathlib.Path
    command: str
    load: Callable
    sources: dict = dataclasses.field(default_factory=dict)

    def source(self, recipe):
        """The recipe's data at its size, loaded once."""
        if recipe.image_size not in self.sources:
            source = self.load(recipe)
            spec = image_spec(recipe, source)
            source, _ = load_images(source, spec, recipe.in_memory)
            self.sources[recipe.image_size] = source
        return self.sources[recipe.image_size]

    def workdir(self, label, seed):
        known = {row.label: row.runs_of for row in self.experiment.rows}
        return self.folder / (known[label] or label) / f"seed-{seed}"

    def recipe(self, row, seed):
        needed = {field: str(self.workdir(label, seed)) for field, label in row.needs}
        return dataclasses.replace(self.recipes[row.label], seed=seed, **needed)

    def train_and_measure(self, row, seed):
        """Trains a row and records its measure; whether there was anything to do."""
        recipe, workdir = self.recipe(row, seed), self.workdir(row.label, seed)
        study = self.experiment.study
        if not study and _recorded(self.path, workdir, row.label, recipe):
            print(f"{row.label}, seed {seed}: recorded in {self.path}")
            return False
        print(f"{row.label}, seed {seed}: training in {workdir}", flush=True)
        keras.backend.clear_session()
        run = train(recipe, workdir, source=self.source(recipe))
        if study:
            return True
        _, splits = load_data(recipe, source=self.source(recipe))
        metric, value = measures.MEASURES[self.experiment.measure](run, splits)
        line = _line(self.experiment, row.label, row.paper_value, run, metric, value)
        results.add_row(self.path, line)
        print(f"{row.label}, seed {seed}: {metric} {value:.2f}", flush=True)
        if not self.experiment.picture:
            self.report()
        return True

    def study(self, rows, seed):
        """Measures all rows' runs of a seed together and records every line."""
        runs = {row.label: Run.open(self.workdir(row.label, seed)) for row in rows}
        sources = {row.label: self.source(self.recipe(row, seed)) for row in rows}
        study = studies.study_of(self.experiment).study
        first = runs[rows[0].label]
        paper = dict(self.experiment.paper_values)
        for label, metric, value in study(runs, sources):
            line = _line(
                self.experiment,
                label,
                paper.get((label, metric)),
                runs.get(label, first),
                metric,
                value,
            )
            results.add_row(self.path, line)
            print(f"{label}, seed {seed}: {metric} {value:.2f}", flush=True)
        self.report()

    def report(self):
        figure = None
        if self.experiment.study and self.path.exists():
            figure = studies.picture_of(self.experiment, results.read_rows(self.path))
        tables.write(self.experiment, self.path, self.command, figure)

    def draw(self, rows):
        runs = {row.label: Run.open(self.workdir(row.label, 0)) for row in rows}
        recipe = self.recipes[rows[0].label]
        spec, splits = load_data(recipe, source=self.source(recipe))
        examples = splits[measures.held_out(splits)]
        draw = PICTURES[self.experiment.picture]
        picture = draw(runs, examples, spec.class_names)
        tables.write(self.experiment, self.path, self.command, *picture)


def _choose(experiment, labels):
    known = {row.label: row for row in experiment.rows}
    unknown = [label for label in labels or () if label not in known]
    if unknown:
        raise ValueError(
            f"Expected rows of {experiment.name}: {', '.join(known)}. "
            f"Received: {', '.join(unknown)}"
        )
    chosen = []

    def add(label):
        for _, needed in known[label].needs:
            add(needed)
        if known[label] not in chosen:
            chosen.append(known[label])

    for label in labels or known:
        add(label)
    return chosen


def _recorded(path, folder, label, recipe):
    """Whether this very run is finished and in the results."""
    if not (folder / "recipe.json").exists():
        return False
    run = Run.create(folder, recipe)
    if load_progress(run.checkpoints / "last.npz").epochs < recipe.epochs:
        return False
    return any(
        (line["row"], line["seed"], line["epochs"])
        == (label, recipe.seed, recipe.epochs)
        for line in results.read_rows(path)
    )


def _line(experiment, label, paper_value, run, metric, value):
    progress = load_progress(run.checkpoints / "last.npz")
    return {
        "method": experiment.method,
        "table": experiment.table,
        "dataset": experiment.dataset,
        "row": label,
        "metric": metric,
        "value": round(value, 4),
        "paper_value": paper_value,
        "seed": run.recipe.seed,
        "epochs": run.recipe.epochs,
        "commit": commit(),
        "versions": versions(),
        "hardware": hardware(),
        "seconds": round(progress.seconds, 1),
    }


def _command(name, data, seeds, rows, overrides):
    words = ["keras-attn", "reproduce", name]
    if data:
        words += ["--data", "PATH"]
    words += ["--seeds", str(seeds)]
    if rows:
        words += ["--rows", *rows]
    for assignment in overrides:
        key, _, value = assignment.partition("=")
        # Where it lies here tells others nothing.
        is_place = pathlib.Path(value).exists() and pathlib.Path(value).parts[1:]
        words += ["--set", f"{key}=PATH" if is_place else assignment]
    return shlex.join(words)
