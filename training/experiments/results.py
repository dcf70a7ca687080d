"""Results as data: one line for each trained run, checked against a schema."""

import csv
import io
import math
import pathlib

import numpy as np

from keras_attn.pipelines.files import write_then_rename
from keras_attn.training.recipes.options import method_names

# Column -> type; `paper_value` may be empty where the paper prints no number.
COLUMNS = {
    "method": str,
    "table": str,
    "dataset": str,
    "row": str,
    "metric": str,
    "value": float,
    "paper_value": float,
    "seed": int,
    "epochs": int,
    "commit": str,
    "versions": str,
    "hardware": str,
    "seconds": float,
}
OPTIONAL = ("paper_value",)
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
        strange = sorted(map(str, set(row) ^ set(COLUMNS)))
        raise ValueError(
            f"Expected the columns {', '.join(COLUMNS)}. Differing: {strange}"
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
        rows = list(csv.DictReader(file))
    try:
        return [check_row(row) for row in rows]
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


def same_run(first, second):
    return all(first[name] == second[name] for name in KEY)


def summarize(rows):
    """`(row, metric, epochs)` -> dict of `mean`, `spread`, `seeds`, `paper_value`.

    The spread is the sample standard deviation, NaN for a single seed.
    """
    groups = {}
    for row in rows:
        groups.setdefault((row["row"], row["metric"], row["epochs"]), []).append(row)
    return {
        key: {
            "mean": float(np.mean([row["value"] for row in group])),
            "spread": float(np.std([row["value"] for row in group], ddof=1))
            if len(group) > 1
            else math.nan,
            "seeds": sorted(row["seed"] for row in group),
            "seconds": float(np.mean([row["seconds"] for row in group])),
            "paper_value": group[0]["paper_value"],
        }
        for key, group in groups.items()
    }
