"""The gain of a fitted exit policy over the authors' thresholds, on ImageNet.

The thresholds are those that the authors of the code that followed the AnchorNet paper
set by hand, for DenseNet-201 on patches of 95x95; the table is theirs too.
"""

import time
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from keras_attn.early_exit.policy import fit_exit_policy
from keras_attn.early_exit.table import ExitTable
from keras_attn.training.early_exit.policy import (
    accuracy_at,
    draw_curves,
    read_table,
    threshold_point,
)
from keras_attn.training.experiments import results, tables
from keras_attn.training.experiments.protocol import PERCENT, RowValue
from keras_attn.training.recipes.experiment import Experiment, Row

# An image exits where its confidence exceeds the threshold; the last exit takes all.
AUTHORS_THRESHOLDS = (
    (0.95, 0.9, 0.9, 0.9),
    (0.85, 0.9, 0.9, 0.9),
    (0.75, 0.9, 0.9, 0.9),
    (0.7, 0.8, 0.9, 0.9),
    (0.6, 0.75, 0.9, 0.9),
    (0.5, 0.75, 0.9, 0.9),
    (0.4, 0.75, 0.9, 0.9),
)
POLICY, THRESHOLDS, AUTHORS = (
    "fitted policy",
    "fitted thresholds",
    "authors' thresholds",
)
COMPARISON = Experiment(
    "anchornet",
    "exit_policy",
    "imagenet",
    "Early exit: accuracy at the costs of the authors' thresholds",
    tuple(Row(label, None) for label in (POLICY, THRESHOLDS, AUTHORS)),
)


def judge(table, seeds=5, folder="results"):
    """Compares on random halves of a table and writes the results.

    For every seed the table is cut into random halves; a policy fitted to one half is
    judged on the other, at the costs that the authors' thresholds have there.

    Args:
        table: Path of a table with five exits.
        seeds: Number of seeds, from 0.
        folder: Folder for CSV, Markdown and picture.

    Returns:
        The rows, as in the CSV.
    """
    arrays = read_table(table)
    images, exits = arrays.confidence.shape
    if exits != len(AUTHORS_THRESHOLDS[0]) + 1 or images < 2:
        raise ValueError(
            "Expected a table with at least 2 images and the "
            f"{len(AUTHORS_THRESHOLDS[0]) + 1} exits of the authors' thresholds. "
            f"Received: {images} images and {exits} exits"
        )
    if seeds < 1:
        raise ValueError(f"Expected at least one seed. Received: seeds={seeds}")
    names = [f"{point['cost']:.2f}" for point in _authors(arrays)]
    rows = [row for seed in range(seeds) for row in _judge_seed(arrays, seed, names)]
    path = results.results_path(
        folder, COMPARISON.method, COMPARISON.table, COMPARISON.dataset
    )
    results.write_rows(path, rows)
    command = f"keras-attn exit-policy judge TABLE.npz --seeds {seeds}"
    tables.write(
        COMPARISON, path, command, figure=_picture(arrays, rows, names), notes=NOTES
    )
    return rows


NOTES = (
    "A metric ends in the mean cost of one line of the authors' thresholds on the "
    "whole table, in the table's unit (GFLOPs); it is read off at the cost that the "
    "line has on the judged images. `gain` is the accuracy less the authors', in "
    "points. A seed cuts the table into random halves: each is judged with what was "
    "fitted to the other, and the value is the mean of both. All seeds share the same "
    "images, so the spread is that of the cut and the fit, not that of new images.",
    "The picture's left panel judges one half of seed 0.",
)


def format_judgement(rows):
    """The gains of `judge` as text."""
    lines = ["Gain over the authors' thresholds, in points (mean, spread over seeds):"]
    lines += [
        f"  {row}, at {metric.removeprefix('gain_at_')}: {found.mean:+.2f}"
        + ("" if len(found.seeds) == 1 else f" ± {found.spread:.2f}")
        for (row, metric, _), found in results.summarize(rows).items()
        if metric.startswith("gain_at_")
    ]
    return "\n".join(lines)


def _authors(table):
    return [threshold_point(line, table) for line in AUTHORS_THRESHOLDS]


def _halves(table, seed):
    order = np.random.default_rng(seed).permutation(len(table.correct))
    middle = len(order) // 2
    return [
        ExitTable(table.confidence[part], table.correct[part], table.cost)
        for part in (order[:middle], order[middle:])
    ]


class Judged(NamedTuple):
    """Accuracies at the authors' costs, and the seconds of the fit."""

    accuracy: np.ndarray
    seconds: float


def _fitted_curves(fitted, judged):
    """Dict from label to `(points, seconds)` of the policies fitted to one half."""
    curves = {}
    for label, family in ((POLICY, None), (THRESHOLDS, "thresholds")):
        start = time.perf_counter()
        policy = fit_exit_policy(*fitted, family=family)
        curves[label] = (policy.evaluate(*judged), time.perf_counter() - start)
    return curves


def _judge_half(fitted, judged):
    """Dict from label to `Judged`."""
    authors = _authors(judged)
    costs = [point["cost"] for point in authors]
    found = {
        label: Judged(accuracy_at(costs, points), seconds)
        for label, (points, seconds) in _fitted_curves(fitted, judged).items()
    }
    found[AUTHORS] = Judged(np.array([point["accuracy"] for point in authors]), 0.0)
    return found


def _judge_seed(table, seed, names):
    first, second = _halves(table, seed)
    halves = [_judge_half(first, second), _judge_half(second, first)]
    found = {
        label: Judged(
            np.mean([half[label].accuracy for half in halves], axis=0),
            np.mean([half[label].seconds for half in halves]),
        )
        for label in halves[0]
    }
    reference = found[AUTHORS].accuracy
    rows = []
    for label, (accuracy, seconds) in found.items():
        metrics = [("accuracy", accuracy, PERCENT)]
        if label != AUTHORS:
            metrics.append(("gain", accuracy - reference, "points"))
        rows += [
            # Nothing is trained: no epochs.
            results.new_row(
                COMPARISON,
                RowValue(label, f"{metric}_at_{name}", 100 * value, unit),
                seed,
                0,
                seconds,
            )
            for metric, values, unit in metrics
            for name, value in zip(names, values, strict=True)
        ]
    return rows


def _picture(table, rows, names):
    """The curves of seed 0, and the gains with their spread over seeds."""
    fitted, judged = _halves(table, 0)
    figure = Figure(figsize=(11, 4.4), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    curves = {
        label: points for label, (points, _) in _fitted_curves(fitted, judged).items()
    }
    draw_curves(left, {**curves, AUTHORS: _authors(judged)}, judged)
    left.set_title("one half, fitted to the other (seed 0)", fontsize=10)
    summary = results.summarize(rows)
    costs = [float(name) for name in names]
    for label, colour in ((POLICY, "C0"), (THRESHOLDS, "C1")):
        groups = [summary[label, f"gain_at_{name}", 0] for name in names]
        right.errorbar(
            costs,
            [group.mean for group in groups],
            np.nan_to_num([group.spread for group in groups]),
            color=colour,
            marker="o",
            markersize=4,
            capsize=3,
            label=label,
        )
    right.axhline(0, color="0.5", linewidth=1)
    right.set_xlabel("mean cost of the authors' thresholds")
    right.set_ylabel("gain in accuracy, points")
    right.set_title("mean and standard deviation over seeds", fontsize=10)
    right.grid(alpha=0.3)
    right.legend(fontsize=8)
    return figure
