"""Trains the rows of a table or figure of a paper and writes their results."""

import dataclasses
import functools
import pathlib
import shlex

import keras

from training import features, measures, report, results
from training.fit import image_spec, load_data, load_source_of, train
from training.recipe import apply_overrides
from training.recipes import get_experiment
from training.resume import load_progress
from training.run import Run


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
    if experiment.picture:
        features.require_scikit_learn()
    chosen = _choose(experiment, rows)
    recipes = {row.label: apply_overrides(row.recipe, overrides) for row in chosen}
    folder = pathlib.Path(workdir) / (experiment.runs_of or name)
    path = results.results_path(
        results_folder, experiment.method, experiment.table, experiment.dataset
    )
    command = _command(name, data, seeds, rows, overrides)

    @functools.cache
    def source():
        recipe = recipes[chosen[0].label]
        loaded = load_source_of(recipe, data, on_corrupt)
        return loaded.decoded(image_spec(recipe, loaded))

    measured = 0
    for seed in range(seeds):
        for row in chosen:
            recipe = dataclasses.replace(recipes[row.label], seed=seed)
            workdir = folder / row.label / f"seed-{seed}"
            if _recorded(path, workdir, row, recipe):
                print(f"{row.label}, seed {seed}: recorded in {path}")
                continue
            print(f"{row.label}, seed {seed}: training in {workdir}", flush=True)
            keras.backend.clear_session()
            run = train(recipe, workdir, source=source())
            _, splits = load_data(recipe, source=source())
            metric, value = measures.MEASURES[experiment.measure](run, splits)
            results.add_row(path, _line(experiment, row, run, metric, value))
            print(f"{row.label}, seed {seed}: {metric} {value:.2f}", flush=True)
            measured += 1
            if not experiment.picture:
                report.write(experiment, path, command)
    if not experiment.picture:
        report.write(experiment, path, command)
    elif measured or not path.with_suffix(".png").exists():
        runs = {row.label: Run.open(folder / row.label / "seed-0") for row in chosen}
        spec, splits = load_data(recipes[chosen[0].label], source=source())
        examples = splits[measures.held_out(splits)]
        draw = features.PICTURES[experiment.picture]
        report.write(experiment, path, command, *draw(runs, examples, spec.class_names))
    return path


def _choose(experiment, labels):
    known = {row.label: row for row in experiment.rows}
    unknown = [label for label in labels or () if label not in known]
    if unknown:
        raise ValueError(
            f"Expected rows of {experiment.name}: {', '.join(known)}. "
            f"Received: {', '.join(unknown)}"
        )
    return [known[label] for label in labels or known]


def _recorded(path, folder, row, recipe):
    """Whether this very run is finished and in the results."""
    if not (folder / "recipe.json").exists():
        return False
    run = Run.create(folder, recipe)
    if load_progress(run.checkpoints / "last.npz").epochs < recipe.epochs:
        return False
    return any(
        (line["row"], line["seed"], line["epochs"])
        == (row.label, recipe.seed, recipe.epochs)
        for line in results.read_rows(path)
    )


def _line(experiment, row, run, metric, value):
    progress = load_progress(run.checkpoints / "last.npz")
    return {
        "method": experiment.method,
        "table": experiment.table,
        "dataset": experiment.dataset,
        "row": row.label,
        "metric": metric,
        "value": round(value, 4),
        "paper_value": row.paper_value,
        "seed": run.recipe.seed,
        "epochs": run.recipe.epochs,
        "commit": results.commit(),
        "versions": results.versions(),
        "hardware": results.hardware(),
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
        words += ["--set", assignment]
    return shlex.join(words)
