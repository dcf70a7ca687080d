"""The CSV file and the Markdown table of measurements."""

import csv
import os
import pathlib

from benchmarks.catalogue import BENCHMARKS

COLUMNS = (
    "benchmark",
    "case",
    "backend",
    "xla",
    "value",
    "unit",
    "ratio",
    "commit",
    "versions",
    "hardware",
)


def read_csv(path):
    """The rows of a file that `write` made; `[]` if there is no file."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(
                f"Expected the columns {', '.join(COLUMNS)} in {path}. "
                f"Received: {', '.join(reader.fieldnames or ())}"
            )
        return [
            {**row, "value": float(row["value"]), "ratio": float(row["ratio"])}
            for row in reader
        ]


def write(folder, rows, left_out=()):
    """Writes `benchmarks.csv` and `benchmarks.md`, each complete or not at all."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "benchmarks.partial"
    with open(partial, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {**row, "value": _digits(row["value"]), "ratio": f"{row['ratio']:.4g}"}
            for row in rows
        )
    os.replace(partial, folder / "benchmarks.csv")
    partial.write_text(markdown(rows, left_out))
    os.replace(partial, folder / "benchmarks.md")


def markdown(rows, left_out=()):
    """The table with the meaning of its ratios, and its commit, versions and hardware.

    Args:
        rows: Dicts with `COLUMNS`.
        left_out: Texts on what was not measured, and why.
    """
    lines = [
        "# Benchmarks",
        "",
        "Made by `./do benchmark` (see benchmarks/README.md). Values are medians; "
        "ratios are medians over rounds of one process, in which the cases took turns.",
        "",
        "| benchmark | case | backend | XLA | value | unit | ratio | target |",
        "|---|---|---|---|---:|---|---:|---|",
    ]
    for row in rows:
        target = BENCHMARKS[row["benchmark"]].targets.get(row["case"])
        cells = (
            row["benchmark"],
            row["case"],
            row["backend"],
            row["xla"],
            _digits(row["value"]),
            row["unit"],
            f"{row['ratio']:.2f}",
            target.verdict(row["ratio"]) if target else "",
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Ratios:", ""]
    measured = {row["benchmark"] for row in rows}
    lines += [
        f"- {name}: {benchmark.ratio}."
        for name, benchmark in BENCHMARKS.items()
        if name in measured
    ]
    if left_out:
        lines += ["", "Left out:", "", *(f"- {text}." for text in left_out)]
    for column in ("commit", "versions", "hardware"):
        values = dict.fromkeys(row[column] for row in rows)
        lines += ["", f"{column}: {' / '.join(values)}"]
    return "\n".join(lines) + "\n"


def _digits(value):
    """Four significant digits, without an exponent."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"
