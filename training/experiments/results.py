"""Results as data: one line per number of a trained run, checked against a schema."""

import csv
import dataclasses
import functools
import io
import math
import pathlib
from typing import NamedTuple

import numpy as np

from keras_attn.pipelines.files import write_then_rename
from keras_attn.training.recipes.options import method_names
from keras_attn.training.runs.environment import commit, hardware, versions

# Column -> type. `paper_value` is empty where the paper prints no number, `unit` where
# there is none, and in files of earlier versions.
COLUMNS = {
    "method": str,
    "table": str,
    "dataset": str,
    "row": str,
    "metric": str,
    "value": float,
    "unit": str,
    "paper_value": float,
    "seed": int,
    "epochs": int,
    "commit": str,
    "versions": str,
    "hardware": str,
    "seconds": float,
}
OPTIONAL = ("unit", "paper_value")
EXPECTED = {str: "a text", int: "an integer", float: "a finite number"}

# A line is the result of one run: this part of it is unique in a file.
KEY = ("row", "metric", "seed", "epochs")


def results_path(folder, method, table, dataset):
    """`FOLDER/METHOD_TABLE_DATASET.csv`."""
    return pathlib.Path(folder) / f"{method}_{table}_{dataset}.csv"


def check_row(row):
    """The row with values of the schema's types.

    Raises:
        ValueError: For a missing or unknown column, a value of another type, a value
            that is not finite, or an unknown method.
    """
    if set(row) != set(COLUMNS):
        different = sorted(map(str, set(row) ^ set(COLUMNS)))
        raise ValueError(
            f"Expected the columns {', '.join(COLUMNS)}. Differing: {different}"
        )
    checked = {}
    for name, kind in COLUMNS.items():
        value = row[name]
        if value in (None, "") and name in OPTIONAL:
            checked[name] = None
            continue
        try:
            checked[name] = kind(value if kind is float else str(value))
            if (
                value in (None, "")
                or kind is float
                and not math.isfinite(checked[name])
            ):
                raise ValueError
        except (TypeError, ValueError):
            raise ValueError(
                f"Expected {name} to be {EXPECTED[kind]}. Received: {value!r}"
            ) from None
    if checked["method"] not in method_names():
        raise ValueError(
            f"Expected method to be one of {', '.join(method_names())}. "
            f"Received: {checked['method']!r}"
        )
    return checked


def read_rows(path):
    """The rows of a results file, checked; none if there is no file."""
    path = pathlib.Path(path)
    if not path.exists():
        return []
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    added = {} if "unit" in (reader.fieldnames or ()) else {"unit": None}
    try:
        return [check_row({**row, **added}) for row in rows]
    except ValueError as error:
        raise ValueError(f"{path} is not a results file: {error}") from error


def write_rows(path, rows):
    """Writes checked rows, complete or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(check_row(row) for row in rows)
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    with write_then_rename(path) as file:
        file.write(text.getvalue().encode())


def add_row(path, row):
    """Adds a row, in place of one for the same run."""
    row = check_row(row)
    kept = [old for old in read_rows(path) if not same_run(old, row)]
    write_rows(path, [*kept, row])


def new_row(experiment, found, seed, epochs, seconds, paper_value=None):
    """A row of a `RowValue` as this code on this machine measured it."""
    return {
        "method": experiment.method,
        "table": experiment.table,
        "dataset": experiment.dataset,
        "row": found.row,
        "metric": found.metric,
        "value": round(float(found.value), 4),
        "unit": found.unit,
        "paper_value": paper_value,
        "seed": seed,
        "epochs": epochs,
        **_provenance(),
        "seconds": round(seconds, 1),
    }


@functools.cache
def _provenance():
    """Columns that are the same for all that a process measures."""
    return {"commit": commit(), "versions": versions(), "hardware": hardware()}


def same_run(first, second):
    return all(first[name] == second[name] for name in KEY)


class Group(NamedTuple):
    """The rows of a results file that differ in their seeds alone."""

    row: str
    metric: str
    epochs: int


@dataclasses.dataclass(frozen=True)
class Summary:
    """Statistics of a `Group`.

    Args:
        mean: Mean of the values.
        spread: Their sample standard deviation, NaN for a single seed.
        unit: Their unit, or `None`.
        seeds: The seeds, sorted.
        seconds: Mean of the seconds.
        paper_value: The paper's number, or `None`.
    """

    mean: float
    spread: float
    unit: str | None
    seeds: list[int]
    seconds: float
    paper_value: float | None

    @property
    def text(self):
        """The mean with its spread."""
        spread = "" if math.isnan(self.spread) else f" ± {self.spread:.2f}"
        return f"{self.mean:.2f}{spread}"


def summarize(rows):
    """Dict from `Group` to `Summary`, in the order of the rows."""
    groups = {}
    for row in rows:
        group = Group(row["row"], row["metric"], row["epochs"])
        groups.setdefault(group, []).append(row)
    return {group: _summary(members) for group, members in groups.items()}


def _summary(rows):
    values = [row["value"] for row in rows]
    return Summary(
        mean=float(np.mean(values)),
        spread=float(np.std(values, ddof=1)) if len(rows) > 1 else math.nan,
        unit=rows[0]["unit"],
        seeds=sorted(row["seed"] for row in rows),
        seconds=float(np.mean([row["seconds"] for row in rows])),
        paper_value=rows[0]["paper_value"],
    )
