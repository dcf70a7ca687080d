"""Comparison of blocks in a trained classifier, on images of one's own.

The same recipe, seeds and images for every row; rows differ in their block alone. Each
seed draws its own split, unless the images have one of their own, so that the intervals
include the choice of the images.
"""

import dataclasses
import functools
import math
import pathlib
import shlex
import statistics
import time
from typing import NamedTuple

import numpy as np

from keras_attn.graph.costs import multiply_adds
from keras_attn.training.data.load import load_source_of
from keras_attn.training.experiments import results, tables
from keras_attn.training.experiments.protocol import PERCENT, RowValue
from keras_attn.training.experiments.reproduce import Comparison
from keras_attn.training.methods import method_of
from keras_attn.training.pages import check_name, figure_uri, write_page
from keras_attn.training.recipes.experiment import Experiment, Row
from keras_attn.training.runs.run import Run

NONE = "none"
# 97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom.
QUANTILES = (12.70620, 4.30265, 3.18245, 2.77645, 2.57058)
QUANTILES += (2.44691, 2.36462, 2.30600, 2.26216, 2.22814)
QUANTILES += (2.20099, 2.17881, 2.16037, 2.14479, 2.13145)
QUANTILES += (2.11991, 2.10982, 2.10092, 2.09302, 2.08596)
WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# Images in a batch whose time is measured, and batches.
TIMED, REPEATS = 16, 5


class Difference(NamedTuple):
    """A row's paired differences to the first row.

    Args:
        values: One for each seed that both rows have, in points.
        mean: Their mean.
        low, high: 95 % confidence interval of the mean, infinite for one seed.
        verdict: The result in words.
    """

    values: list[float]
    mean: float
    low: float
    high: float
    verdict: str


def difference(values):
    """The `Difference` of paired differences.

    The interval is that of Student's t for the mean of independent pairs. Two may be
    equal by chance, with an interval of no width, so that they give no verdict.
    """
    mean = statistics.fmean(values)
    half = math.inf
    if len(values) > 1:
        freedom = len(values) - 1
        quantile = QUANTILES[min(freedom, len(QUANTILES)) - 1]
        half = quantile * statistics.stdev(values) / math.sqrt(len(values))
    low, high = mean - half, mean + half
    if len(values) > 2 and (low > 0 or high < 0):
        word = "better" if mean > 0 else "worse"
        verdict = f"{word} by {abs(mean):.2f} points"
    else:
        count = len(values)
        number = WORDS[count] if count < len(WORDS) else str(count)
        verdict = f"no difference that {number} seed{'s'[: count > 1]} can tell"
    return Difference(list(values), mean, low, high, verdict)


def compare(
    recipe,
    blocks,
    data,
    name,
    workdir="runs",
    results_folder="results",
    seeds=3,
    on_corrupt="error",
    command="",
    first_seed=0,
):
    """Fine-tunes with each block for every seed, and writes CSV, tables and a page.

    Resumes as `keras_attn.training.experiments.reproduce.reproduce` does.

    Args:
        recipe: Recipe of the method `finetune`.
        blocks: Blocks, as the recipe's `blocks`; `none` is the model without. The first
            is what the others are compared with.
        data: Path of the images.
        name: Name of the comparison.
        workdir, results_folder, seeds, on_corrupt: See `reproduce`.
        command: Command that makes the same results again.
        first_seed: The first of the `seeds`. Seeds of which no comparison had a run
            confirm what another one suggested.

    Returns:
        Path of the CSV file; the Markdown table, the plot and the page lie beside it.
    """
    if len(blocks) < 2 or len({*blocks}) < len(blocks) or seeds < 1 or first_seed < 0:
        raise ValueError(
            "Expected at least two different blocks, such as none and cbam, and a "
            f"seed from 0 on. Received: blocks={' '.join(blocks)}, seeds={seeds}, "
            f"first_seed={first_seed}"
        )
    recipes = {}
    for block in blocks:
        chosen = "" if block == NONE else block
        options = dataclasses.replace(recipe.options, blocks=chosen)
        recipes[block] = dataclasses.replace(recipe, options=options)
    rows = tuple(Row(block, each) for block, each in recipes.items())
    title = f"Blocks in {recipe.backbone}, fine-tuned"
    experiment = Experiment("finetune", "compare", name, title, rows)
    path = results.results_path(results_folder, "finetune", "compare", name)
    check_name(path.with_suffix(".html"))
    comparison = Comparison(
        experiment,
        recipes,
        pathlib.Path(workdir) / experiment.name,
        path,
        command or shlex.join(["keras-attn", "compare", "PHOTOS", "--blocks", *blocks]),
        functools.partial(load_source_of, data=data, on_corrupt=on_corrupt),
        own_splits=True,
    )
    for row in rows:
        method_of(row.recipe).check(row.recipe)
    chosen = range(first_seed, first_seed + seeds)
    for seed in chosen:
        for row in rows:
            if comparison.train_and_measure(row, seed):
                write_report(comparison, recipe, chosen)
    for row in rows:
        _measure_costs(comparison, row, first_seed)
    write_report(comparison, recipe, chosen)
    return path


def _measure_costs(comparison, row, seed):
    """Records parameters, multiply-adds and time of a row's network, of one seed."""
    if any(
        line["row"] == row.label and line["metric"] == "time"
        for line in results.read_rows(comparison.path)
    ):
        return
    run = Run.open(comparison.workdir(row.label, seed))
    model = run.load_model("last")
    size = run.recipe.image_size
    found = [("parameters", model.count_params() / 1e6, "million")]
    try:
        count = multiply_adds(model, (size, size, 3))
        found.append(("multiply_adds", count / 1e6, "million"))
    except ValueError as error:
        print(f"{row.label}: no multiply-adds. {error}")
    found.append(("time", _milliseconds(model, size), "ms per image"))
    for each in found:
        comparison.record(run, RowValue(row.label, *each), None)


def _milliseconds(model, size):
    images = np.random.default_rng(0).integers(0, 256, (TIMED, size, size, 3), "uint8")
    seconds = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        model.predict_on_batch(images)
        seconds.append(time.perf_counter() - start)
    # The first one compiles.
    return 1000 * statistics.median(seconds[1:]) / TIMED


def differences(rows):
    """Dict from rows of a results file to their `Difference` to the first one."""
    scores = {}
    for line in rows:
        if line["metric"].endswith("_accuracy"):
            scores.setdefault(line["row"], {})[line["seed"]] = line["value"]
    first, *others = scores
    found = {}
    for label in others:
        shared = sorted({*scores[label]} & {*scores[first]})
        if shared:
            pairs = [scores[label][seed] - scores[first][seed] for seed in shared]
            found[label] = difference(pairs)
    return found


def table(path, order):
    """The lines of a comparison of a CSV file: dicts of texts, ordered as the rows."""
    rows = sorted(
        results.read_rows(path),
        key=lambda line: order.index(line["row"]) if line["row"] in order else 99,
    )
    found = differences(rows) if rows else {}
    lines = {}
    for group, summary in results.summarize(rows).items():
        line = lines.setdefault(group.row, {"block": group.row})
        metric = "accuracy" if summary.unit == PERCENT else group.metric
        line[metric] = summary.text
        if metric == "accuracy":
            line["seeds"] = str(len(summary.seeds))
    for label, line in lines.items():
        if label in found:
            each = found[label]
            line["difference"] = f"{each.mean:+.2f}"
            line["interval"] = (
                f"{each.low:+.2f} to {each.high:+.2f}" if len(each.values) > 1 else "–"
            )
            line["verdict"] = each.verdict
    return list(lines.values())


# Column -> title.
COLUMNS = {
    "block": "block",
    "accuracy": "accuracy, %",
    "seeds": "seeds",
    "difference": "difference, points",
    "interval": "95 % interval",
    "verdict": "verdict",
    "parameters": "parameters, million",
    "multiply_adds": "multiply-adds, million",
    "time": "ms per image",
}


def format_table(lines):
    """The lines of `table` for people."""
    texts = [[*COLUMNS.values()]]
    texts += [[line.get(column, "–") for column in COLUMNS] for line in lines]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join(
        "  ".join(
            text.ljust(width) for text, width in zip(each, widths, strict=True)
        ).rstrip()
        for each in texts
    )


def write_report(comparison, recipe, seeds):
    """Writes the Markdown table, the plot and the page of what is known so far.

    Args:
        comparison: `Comparison`.
        recipe: Recipe of all rows but for their blocks.
        seeds: Range of the seeds.
    """
    experiment, path = comparison.experiment, comparison.path
    order = [row.label for row in experiment.rows]
    lines = table(path, order)
    heads = " | ".join(COLUMNS.values())
    texts = [f"| {heads} |", "|---" * len(COLUMNS) + "|"]
    texts += [
        f"| {' | '.join(line.get(column, '–') for column in COLUMNS)} |"
        for line in lines
    ]
    epochs = "One epoch, with"
    if recipe.epochs > 1:
        epochs = (
            f"{recipe.epochs} epochs at a learning rate of {recipe.learning_rate:g}, "
            "the first of them with"
        )
    settings = (
        f"{epochs} everything frozen but the head and the block; "
        f"{recipe.options.new_epochs} passes train the block in it. "
    )
    if recipe.train_per_class:
        settings += f"{recipe.train_per_class} training images per class. "
    if seeds.start:
        settings += f"Seeds {seeds[0]} to {seeds[-1]}. "
    settings += "The last epoch is judged on the test images."
    notes = [settings, NOTE.format(first=order[0]), "\n".join(texts)]
    tables.write(experiment, path, comparison.command, notes=notes)
    rows = [
        line for line in results.read_rows(path) if line["metric"].endswith("_accuracy")
    ]
    plot = tables.plot(experiment, results.summarize(rows), rows)
    write_page(
        path.with_suffix(".html"),
        "comparison.html",
        {
            "title": experiment.title,
            "dataset": experiment.dataset,
            "columns": COLUMNS,
            "lines": lines,
            "plot": figure_uri(plot),
            "notes": notes[:2],
            "command": comparison.command,
            "environment": {
                name: "; ".join(sorted({row[name] for row in rows}))
                for name in ("commit", "versions", "hardware")
            },
        },
    )


NOTE = (
    "Differences are to {first}, in the same seed with the same split, in points of "
    "accuracy; the interval is that of Student's t for their mean. Each row is judged "
    "by itself: of twenty blocks without any effect, one is expected to be called "
    "better or worse. All share the runs of {first}: where these are poor by chance, "
    "all others look better. Times are medians on this machine, of batches of 16 "
    "images."
)
