"""Fits and evaluations of exit policies in files, and their pictures.

A table is a `.npz` file with the arrays `confidence`, `correct` and `cost`; see
`keras_attn.early_exit.policy`.
"""

import pathlib

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from keras_attn.early_exit.policy import ExitPolicy, fit_exit_policy
from keras_attn.early_exit.table import check_exit_table
from keras_attn.pipelines import files

ARRAYS = ("confidence", "correct", "cost")
# Thresholds of the rule that all pictures compare with.
SWEEP = np.linspace(0, 1, 201)


def read_table(path):
    """The `ExitTable` of a file, checked.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a table; the message names the first fault.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Expected a table, a .npz file. Received: {path}")
    try:
        found = files.read_arrays(path, ARRAYS.__contains__)
        missing = [name for name in ARRAYS if name not in found]
        if missing:
            raise ValueError(
                f"Expected the arrays {', '.join(ARRAYS)}. "
                f"Missing: {', '.join(missing)}"
            )
        return check_exit_table(*map(found.get, ARRAYS))
    except files.DAMAGE as error:
        raise ValueError(
            f"{path} is not an exit table: expected several arrays in a .npz file. "
            f"Received: {error}"
        ) from error


def fit(table, output, points=40):
    """Fits a policy to a table and writes it.

    Args:
        table: Path of the table.
        output: JSON file to write.
        points: Number of budgets.

    Returns:
        Dict of the policy's path, the rule's family, the cross-validated accuracies it
        was chosen by, the numbers of images and exits, and the cost and accuracy of
        every budget on the table itself.
    """
    arrays = read_table(table)
    output = pathlib.Path(output)
    policy = fit_exit_policy(*arrays, points=points)
    output.parent.mkdir(parents=True, exist_ok=True)
    with files.save_then_rename(output) as temporary:
        policy.save(temporary)
    return {
        "policy": str(output),
        "family": policy.family,
        "scores": policy.scores,
        "images": len(arrays.correct),
        "exits": len(policy.cost),
        "budgets": [
            {"cost": rule.cost, "accuracy": rule.accuracy} for rule in policy.rules
        ],
    }


def evaluate(policy, table, picture=None):
    """List of `{"cost": ..., "accuracy": ...}`, every budget of a policy on a table.

    Both are paths; `picture` is a PNG file to draw the curve into.
    """
    loaded = load_policy(policy)
    arrays = read_table(table)
    points = loaded.evaluate(*arrays)
    if picture is not None:
        figure = draw_curve({"policy": points}, arrays, pathlib.Path(table).name)
        save_picture(figure, picture)
    return points


def load_policy(path):
    """The policy in a file; a missing file is named."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Expected a policy, a .json file. Received: {path}")
    return ExitPolicy.load(path)


def format_fit(summary):
    """The summary of `fit` as text."""
    lines = [
        f"{summary['policy']}: {len(summary['budgets'])} budgets, fitted to "
        f"{summary['images']} images with {summary['exits']} exits",
    ]
    if summary["family"]:
        lines.append(f"Kind of rule: {summary['family']}")
    for family, score in summary["scores"].items():
        lines.append(f"  cross-validated, {family}: {100 * score:.2f} %")
    lines += ["On the table itself:", format_evaluation(summary["budgets"])]
    return "\n".join(lines)


def format_evaluation(points):
    """The points of a curve as text."""
    width = max(12, *(len(f"{point['cost']:.6g}") for point in points))
    lines = [f"{'COST':>{width}}  ACCURACY"]
    lines += [
        f"{point['cost']:>{width}.6g}  {100 * point['accuracy']:.2f} %"
        for point in points
    ]
    return "\n".join(lines)


# ---- curves --------------------------------------------------------------------------


def threshold_point(thresholds, table):
    """Cost and accuracy of given thresholds, one for every exit but the last.

    An image stops where its confidence exceeds the threshold.
    """
    stops = np.ones(table.confidence.shape, bool)
    stops[:, :-1] = table.confidence[:, :-1] > np.asarray(thresholds, "float32")
    return table.point(stops.argmax(axis=1))


def common_thresholds(table):
    """The curve of one threshold for all exits."""
    exits = len(table.cost)
    return [threshold_point([limit] * (exits - 1), table) for limit in SWEEP]


def accuracy_at(costs, points):
    """Accuracy of a curve at given costs, between its points by straight lines.

    Beyond its most expensive point a curve keeps that point's accuracy.
    """
    curve = sorted((point["cost"], point["accuracy"]) for point in points)
    return np.interp(costs, *np.array(curve).T)


def draw_curve(curves, table, title):
    """A figure of accuracy against cost: named curves, one threshold, and each exit.

    Curves are lists of points by name, measured on `table`, an `ExitTable`.
    """
    figure = Figure(figsize=(6.4, 4.4), dpi=100, layout="constrained")
    draw_curves(figure.subplots(), curves, table)
    figure.axes[0].set_title(title, fontsize=10)
    return figure


def draw_curves(axes, curves, table):
    """Draws what `draw_curve` does into axes."""
    curves = {**curves, "one threshold for all exits": common_thresholds(table)}
    for name, points in curves.items():
        marker = "." if len(points) < len(SWEEP) else ""
        axes.plot(
            [point["cost"] for point in points],
            [100 * point["accuracy"] for point in points],
            marker=marker,
            linewidth=1,
            label=name,
        )
    axes.plot(
        table.cost,
        100 * table.correct.mean(axis=0),
        "s",
        color="0.5",
        label="always the same exit",
    )
    axes.set_xlabel("mean cost")
    axes.set_ylabel("accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def save_picture(figure, path):
    """Writes a figure as PNG."""
    path = pathlib.Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"Expected the name of a PNG file. Received: {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    with files.write_then_rename(path) as file:
        figure.savefig(file, format="png")
