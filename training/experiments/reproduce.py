"""Trains the rows of a table or figure of a paper and writes their results."""

import dataclasses
import functools
import pathlib
import shlex
from collections.abc import Callable

import keras

from keras_attn.pipelines.images.fonts import drawable_names
from keras_attn.pipelines.images.streaming import load_images
from keras_attn.training.data.load import image_spec, load_data, load_source_of
from keras_attn.training.drawing import with_fonts
from keras_attn.training.experiments import measures, results, studies, tables
from keras_attn.training.experiments.figures import get_figure
from keras_attn.training.experiments.protocol import RowValue
from keras_attn.training.fit.train import train
from keras_attn.training.methods import method_of
from keras_attn.training.recipes.experiment import Experiment
from keras_attn.training.recipes.registry import get_experiment
from keras_attn.training.recipes.schema import apply_overrides
from keras_attn.training.runs.run import Run
from keras_attn.training.runs.state import load_progress


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
    one resumes where it stopped.

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
    if experiment.figure:
        get_figure(experiment.figure)
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
    if not experiment.figure:
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
        folder: Folder of the runs, `FOLDER/ROW/seed-N`.
        path: Path of the results.
        command: Command that makes the same results again.
        load: Function from a recipe to its `Source`.
        own_splits: Whether every seed of a run is that of its split, too.
        sources: Dict from image sizes to the data that was loaded so far.
    """

    experiment: Experiment
    recipes: dict
    folder: pathlib.Path
    path: pathlib.Path
    command: str
    load: Callable
    own_splits: bool = False
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
        if self.own_splits:
            needed["split_seed"] = seed
        return dataclasses.replace(self.recipes[row.label], seed=seed, **needed)

    def train_and_measure(self, row, seed):
        """Trains a row and records its measure; `False` if that was done before."""
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
        value = measures.MEASURES[self.experiment.measure](run, splits)
        self.record(run, RowValue(row.label, *value), row.paper_value)
        if not self.experiment.figure:
            self.report()
        return True

    def study(self, rows, seed):
        """Measures all rows' runs of a seed together and records every line."""
        runs = {row.label: Run.open(self.workdir(row.label, seed)) for row in rows}
        sources = {row.label: self.source(self.recipe(row, seed)) for row in rows}
        first = runs[rows[0].label]
        paper = dict(self.experiment.paper_values)
        for found in studies.get_study(self.experiment.study).study(runs, sources):
            known = paper.get((found.row, found.metric))
            self.record(runs.get(found.row, first), found, known)
        self.report()

    def record(self, run, found, paper_value):
        """Adds a `RowValue` of a run to the results."""
        recipe = run.recipe
        seconds = load_progress(run.checkpoints / "last.npz").seconds
        row = results.new_row(
            self.experiment, found, recipe.seed, recipe.epochs, seconds, paper_value
        )
        results.add_row(self.path, row)
        print(
            f"{found.row}, seed {recipe.seed}: {found.metric} {found.value:.2f}",
            flush=True,
        )

    def report(self):
        figure = None
        if self.experiment.study and self.path.exists():
            study = studies.get_study(self.experiment.study)
            figure = studies.figure_of(study, results.read_rows(self.path))
        tables.write(self.experiment, self.path, self.command, figure)

    def draw(self, rows):
        runs = {row.label: Run.open(self.workdir(row.label, 0)) for row in rows}
        recipe = self.recipes[rows[0].label]
        spec, splits = load_data(recipe, source=self.source(recipe))
        examples = splits[measures.held_out(splits)]
        names = drawable_names(spec.class_names)
        drawing = get_figure(self.experiment.figure)(runs, examples, names)
        with_fonts(drawing.figure)
        tables.write(self.experiment, self.path, self.command, *drawing)


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
    """`True` if this very run is finished and in the results."""
    if not (folder / "recipe.json").exists():
        return False
    run = Run.create(folder, recipe)
    progress = load_progress(run.checkpoints / "last.npz")
    if not progress.is_finished(recipe.epochs):
        return False
    return any(
        (line["row"], line["seed"], line["epochs"])
        == (label, recipe.seed, recipe.epochs)
        for line in results.read_rows(path)
    )


def _command(name, data, seeds, rows, overrides):
    words = ["keras-attn", "reproduce", name]
    if data:
        words += ["--data", "PATH"]
    words += ["--seeds", str(seeds)]
    if rows:
        words += ["--rows", *rows]
    for assignment in overrides:
        key, _, value = assignment.partition("=")
        # A path on this machine means nothing elsewhere.
        is_place = pathlib.Path(value).exists() and pathlib.Path(value).parts[1:]
        words += ["--set", f"{key}=PATH" if is_place else assignment]
    return shlex.join(words)
