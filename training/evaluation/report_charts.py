"""The charts of an evaluation report, as SVG that a page holds inside itself.

Text and lines take the colour of the page's text, so that they are legible on a light
and on a dark page; they are text, not outlines, so that they can be searched.
"""

import io
import re

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter

from keras_attn.pipelines.images.fonts import font_file
from keras_attn.training.drawing import with_fonts

# Replaced by the page's own colour of text.
TEXT_COLOUR = "#010203"
STYLE = {
    "svg.fonttype": "none",
    # A dollar in a class name does not begin a formula.
    "text.parse_math": False,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "legend.frameon": False,
    **dict.fromkeys(
        (
            "text.color",
            "axes.labelcolor",
            "axes.edgecolor",
            "xtick.color",
            "ytick.color",
        ),
        TEXT_COLOUR,
    ),
}
# Training and validation; both are visible on white and on black, and differ for the
# colour-blind too.
COLOURS = ("#2f7ed8", "#e07b00")
HEAT = (0.18, 0.49, 0.85)
# Opacity of the heat of a share of 1: text on it is still legible.
STRONGEST = 0.75
# More classes are numbered on the axes, and their cells show no numbers.
NAMED_CLASSES = 25
NAME_WIDTH = 28


def curves(history, best_epoch=None):
    """SVG text: every metric over the epochs, in training and in validation.

    The history has one dict of logs per epoch, see `Progress.history`; the epoch of the
    best model, 0-based, is marked.
    """
    names = curve_names(history)
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    with matplotlib.rc_context(STYLE):
        figure = _figure(3.4 * columns, 2.5 * rows)
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        epochs = np.arange(1, len(history) + 1)
        for axis, name in zip(axes, names, strict=False):
            for prefix, part, colour in zip(
                ("", "val_"), ("training", "validation"), COLOURS, strict=True
            ):
                values = [logs.get(prefix + name, np.nan) for logs in history]
                if np.isfinite(values).any():
                    style = {"marker": ".", "color": colour, "label": part}
                    axis.plot(epochs, values, **style)
            if best_epoch is not None:
                axis.axvline(best_epoch + 1, color="0.55", lw=0.8, ls=":", zorder=0)
            if name == "learning_rate":
                axis.set_yscale("log")
                # The usual one writes formulas.
                axis.yaxis.set_major_formatter("{x:g}")
                axis.yaxis.set_minor_formatter(NullFormatter())
            axis.set_title(name.replace("_", " "))
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            axis.grid(axis="y", alpha=0.25)
        for axis in axes[len(names) :]:
            axis.set_axis_off()
        axes[0].legend()
        for axis in axes[max(0, len(names) - columns) : len(names)]:
            axis.set_xlabel("epoch")
        return _svg(figure, "Training curves")


def curve_names(history):
    """Metrics without `val_`: accuracies first, then losses, the learning rate last."""
    names = {name.removeprefix("val_") for logs in history for name in logs}
    names -= {"epoch"}

    def order(name):
        kinds = ("accuracy" not in name, name != "loss", name == "learning_rate")
        return kinds[2], kinds[0], kinds[1], name

    return sorted(names, key=order)


def confusion(matrix, class_names):
    """A confusion matrix; a cell is the darker the larger its share of the row."""
    classes = len(matrix)
    named = classes <= NAMED_CLASSES
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    cells = np.empty((*matrix.shape, 4))
    cells[..., :3] = HEAT
    cells[..., 3] = STRONGEST * shares
    side = 0.36 * classes if named else 5.5
    with matplotlib.rc_context(STYLE):
        figure = _figure(max(side, 1.5) + (2.6 if named else 0.8), max(side, 1.5) + 0.6)
        axis = figure.add_subplot()
        axis.imshow(cells, interpolation="none")
        axis.set_xlabel("taken for")
        axis.set_ylabel("is")
        if named:
            places = range(classes)
            numbers = [str(label + 1) for label in places]
            names = [
                f"{shortened(name)}  {number}" if font_file(name) else number
                for name, number in zip(class_names, numbers, strict=True)
            ]
            axis.set_xticks(places, numbers)
            axis.set_yticks(places, names)
            for row, column in zip(*np.nonzero(matrix), strict=True):
                text = str(matrix[row, column])
                axis.text(column, row, text, ha="center", va="center", fontsize=7)
        axis.spines[["top", "right"]].set_visible(True)
        return _svg(
            figure, "Confusion matrix: the classes that each class was taken for"
        )


def precision_recall(curves):
    """Precision over recall.

    Args:
        curves: Dict from names to pairs of recall and precision.
    """
    with matplotlib.rc_context(STYLE):
        figure = _figure(5.6, 4.0)
        axis = figure.add_subplot()
        for name, pair in curves.items():
            axis.plot(*pair, lw=1.2, drawstyle="steps-pre", label=shortened(name))
        axis.set(xlim=(0, 1.01), ylim=(0, 1.01), xlabel="recall", ylabel="precision")
        axis.grid(alpha=0.25)
        figure.legend(loc="outside right upper")
        return _svg(figure, "Precision over recall of the labels")


def reliability(calibration, axes=("confidence", "accuracy", "images")):
    """Accuracy of the answers by confidence, and their number."""
    edges = calibration.edges
    filled = calibration.counts > 0
    with matplotlib.rc_context(STYLE):
        figure = _figure(4.4, 4.2)
        top, bottom = figure.subplots(
            2, 1, sharex=True, height_ratios=(3, 1), squeeze=True
        )
        width = np.diff(edges)[filled]
        left = edges[:-1][filled]
        accuracy = calibration.accuracy[filled]
        bars = {"width": width, "align": "edge", "linewidth": 0.5}
        top.bar(left, accuracy, color=COLOURS[0], edgecolor="0.5", alpha=0.8, **bars)
        points = calibration.confidence[filled], accuracy
        top.plot(*points, "o", color=COLOURS[1], markersize=4, label="mean of a bin")
        top.plot((0, 1), (0, 1), color="0.55", ls="--", lw=1, label="calibrated")
        top.set(ylim=(0, 1), xlim=(0, 1), ylabel=axes[1])
        top.legend(loc="upper left")
        top.grid(axis="y", alpha=0.25)
        counts = calibration.counts[filled] / calibration.counts.sum()
        bottom.bar(left, counts, color="0.55", edgecolor="0.5", **bars)
        bottom.set(xlabel=axes[0], ylabel=axes[2])
        bottom.yaxis.set_major_formatter(PercentFormatter(1.0, 0))
        bottom.yaxis.set_major_locator(MaxNLocator(3))
        return _svg(figure, f"Reliability diagram: {axes[1]} by {axes[0]}")


def shortened(name, width=NAME_WIDTH):
    """A long name without its middle."""
    if len(name) <= width:
        return name
    half = (width - 1) // 2
    return f"{name[: width - 1 - half]}…{name[-half:]}"


def _figure(width, height):
    return Figure(figsize=(width, height), layout="constrained")


def _svg(figure, label):
    """The figure as an SVG element with a text alternative."""
    text = io.StringIO()
    FigureCanvasSVG(with_fonts(figure))
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    text = text.getvalue()
    text = text[text.index("<svg") :].replace(TEXT_COLOUR, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
