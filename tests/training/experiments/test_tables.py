"""The Markdown table and the plot."""

import io
import pathlib
import re
import statistics
import types

import matplotlib.image
import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from keras_attn.training.experiments import results, tables
from keras_attn.training.experiments.exit_policies import COMPARISON
from keras_attn.training.recipes.experiment import Experiment, Row
from keras_attn.training.recipes.registry import EXPERIMENTS
from keras_attn.training.recipes.schema import Recipe
from tests.training.experiments.test_results import line


def experiment(*labels):
    return Experiment(
        "class_embedding",
        "table1",
        "cifar10",
        "A title",
        tuple(Row(label, Recipe(label)) for label in labels),
    )


def lines(values, epochs=200):
    return [
        line(row=label, seed=seed, value=value, paper_value=None, epochs=epochs)
        for label, row in values.items()
        for seed, value in enumerate(row)
    ]


VALUES = {"b": [80.0, 82.5, 81.0], "a": [70.25, 69.0, 71.5], "c": [60.0]}


def write(tmp_path, rows, *labels, **options):
    path = tmp_path / "r.csv"
    results.write_rows(path, rows)
    tables.write(experiment(*labels), path, "keras-attn reproduce X", **options)
    return path


def test_the_table_has_mean_and_spread_in_the_papers_order(tmp_path):
    rows = lines(VALUES)
    rows[0]["paper_value"] = rows[1]["paper_value"] = rows[2]["paper_value"] = 90.57
    rows[-1]["commit"] = "def"
    text = write(tmp_path, rows, "a", "b", "c").with_suffix(".md").read_text()
    table = [text for text in text.splitlines() if re.match(r"\| [abc] ", text)]
    for found, label, paper in zip(table, "abc", ("", "90.57", ""), strict=True):
        cells = [cell.strip() for cell in found.strip("|").split("|")]
        values = VALUES[label]
        wanted = f"{statistics.mean(values):.2f}"
        if len(values) > 1:
            wanted += f" ± {statistics.stdev(values):.2f}"
        assert cells[:4] == [label, "test_accuracy", "200", wanted]
        assert cells[4] == ", ".join(str(seed) for seed in range(len(values)))
        assert cells[5] == paper
    assert "`keras-attn reproduce X`" in text
    assert "commit: abc; def" in text and "hardware: 2 cores" in text
    assert "(r.png)" in text


def test_other_numbers_of_epochs_stay_apart(tmp_path):
    rows = lines({"a": [70.0]}) + lines({"a": [50.0]}, epochs=2)
    text = write(tmp_path, rows, "a").with_suffix(".md").read_text()
    assert "| a | test_accuracy | 2 | 50.00 |" in text
    assert "| a | test_accuracy | 200 | 70.00 |" in text


def test_notes_and_a_figure_of_the_callers_own(tmp_path):
    figure = types.SimpleNamespace(savefig=lambda file, **options: file.write(b"mine"))
    path = write(
        tmp_path,
        lines(VALUES),
        "a",
        "b",
        "c",
        figure=figure,
        notes=["First.", "Second."],
    )
    assert path.with_suffix(".png").read_bytes() == b"mine"
    assert "\n\nFirst.\n\nSecond.\n" in path.with_suffix(".md").read_text()


def test_nothing_is_written_without_results(tmp_path):
    tables.write(experiment("a"), tmp_path / "r.csv", "command")
    assert not list(tmp_path.iterdir())


def test_the_plot_is_a_picture_with_something_on_it(tmp_path):
    path = write(tmp_path, lines(VALUES), "a", "b", "c")
    pixels = matplotlib.image.imread(io.BytesIO(path.with_suffix(".png").read_bytes()))
    assert min(pixels.shape[:2]) > 300
    assert len(np.unique(pixels[..., :3].reshape(-1, 3), axis=0)) > 50


def plotted(rows, *labels):
    path_order = {label: number for number, label in enumerate(labels)}
    summary = dict(
        sorted(results.summarize(rows).items(), key=lambda item: path_order[item[0][0]])
    )
    figure = tables.plot(experiment(*labels), summary, rows)
    return figure.axes[0]


def test_rows_with_names_stand_side_by_side():
    axes = plotted(lines(VALUES), "a", "b", "c")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c"]
    dots = [artist for artist in axes.lines if artist.get_marker() == "o"]
    assert [sorted(dot.get_ydata()) for dot in dots] == [
        sorted(VALUES[label]) for label in "abc"
    ]
    assert axes.get_ylabel() == "test accuracy, %"


@pytest.mark.parametrize("unit, label", [("cells", ", cells"), ("", ""), (None, "")])
def test_the_axis_names_the_unit_of_the_values(unit, label):
    rows = [{**row, "unit": unit} for row in lines({"a": [1.0], "b": [2.0]})]
    assert plotted(rows, "a", "b").get_ylabel() == f"test accuracy{label}"


def test_rows_with_numbers_lie_on_a_line_with_a_band():
    sweep = {f"{step / 10:.1f}": [50.0 + step, 51.0 + 2 * step] for step in range(11)}
    axes = plotted(lines(sweep), *reversed(sweep))
    curve = next(artist for artist in axes.lines if len(artist.get_xdata()) == 11)
    assert list(curve.get_xdata()) == pytest.approx([step / 10 for step in range(11)])
    means = [statistics.mean(values) for values in sweep.values()]
    assert list(curve.get_ydata()) == pytest.approx(means)
    band = next(item for item in axes.collections if isinstance(item, PolyCollection))
    spreads = [statistics.stdev(values) for values in sweep.values()]
    lows = [mean - spread for mean, spread in zip(means, spreads, strict=True)]
    assert band.get_paths()[0].vertices[:, 1].min() == pytest.approx(min(lows))


RESULTS = pathlib.Path(__file__).parents[3] / "results"
LISTED = {path.name for path in RESULTS.iterdir()}
KNOWN = {**EXPERIMENTS, COMPARISON.name: COMPARISON}


@pytest.mark.parametrize("name", [name for name in KNOWN if f"{name}.csv" in LISTED])
def test_committed_tables_are_made_of_their_files(name, monkeypatch):
    path = RESULTS / f"{name}.csv"
    text = path.with_suffix(".md").read_text()
    command = re.search(r"Made by `(.*?)`\.", text).group(1)
    _, _, below = text.partition(f"]({name}.png)\n\n")
    notes = below.partition("commit: ")[0].rstrip("\n")
    written = {}
    monkeypatch.setattr(tables, "write_then_rename", lambda path: Kept(written, path))
    picture = types.SimpleNamespace(savefig=lambda file, **options: None)
    notes = [notes] if notes else []
    tables.write(KNOWN[name], path, command, picture, notes)
    assert written[f"{name}.md"] == text


class Kept(io.BytesIO):
    """A file that is kept in a dict."""

    def __init__(self, written, path):
        super().__init__()
        self.written, self.name = written, path.name

    def __exit__(self, *error):
        self.written[self.name] = self.getvalue().decode()
