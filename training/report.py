"""Results as people read them: a Markdown table and a plot, from the CSV file."""

import math

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training import results
from training.run import write_then_rename


def write(experiment, path, command):
    """Writes `PATH.md` and `PATH.png` beside the results file, if it has rows.

    Args:
        experiment: `Experiment` whose rows order the table.
        path: The CSV file.
        command: Command that makes these results.
    """
    rows = results.read_rows(path)
    if not rows:
        return
    order = {row.label: number for number, row in enumerate(experiment.rows)}
    summary = dict(
        sorted(
            results.summarize(rows).items(),
            key=lambda item: (item[0][2], order.get(item[0][0], len(order))),
        )
    )
    with write_then_rename(path.with_suffix(".md")) as file:
        file.write(markdown(experiment, summary, rows, command).encode())
    with write_then_rename(path.with_suffix(".png")) as file:
        plot(experiment, summary, rows, file)


def markdown(experiment, summary, rows, command):
    """The table as text, with mean, spread, seeds and where it was made."""
    lines = [
        f"# {experiment.title}, {experiment.dataset}",
        "",
        f"Made by `{command}`. Mean and sample standard deviation over seeds.",
        "",
        "| row | metric | epochs | value | seeds | paper | seconds a run |",
        "|---|---|---|---|---|---|---|",
    ]
    for (label, metric, epochs), group in summary.items():
        spread = "" if math.isnan(group["spread"]) else f" ± {group['spread']:.2f}"
        paper = "" if group["paper_value"] is None else f"{group['paper_value']:.2f}"
        seeds = ", ".join(map(str, group["seeds"]))
        lines.append(
            f"| {label} | {metric} | {epochs} | {group['mean']:.2f}{spread} "
            f"| {seeds} | {paper} | {group['seconds']:.0f} |"
        )
    for name in ("commit", "versions", "hardware"):
        lines += ["", f"{name}: {'; '.join(sorted({row[name] for row in rows}))}"]
    return "\n".join(lines) + "\n"


def plot(experiment, summary, rows, file):
    """Every run as a dot and every row's mean as a bar, or a line over numbers."""
    figure = Figure(figsize=(max(5.0, 1.1 * len(summary) + 2.0), 4.2))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    labels = []
    for position, ((label, metric, epochs), group) in enumerate(summary.items()):
        several = len({key[2] for key in summary}) > 1
        labels.append(f"{label}\n{epochs} epochs" if several else label)
        values = [
            row["value"]
            for row in rows
            if (row["row"], row["metric"], row["epochs"]) == (label, metric, epochs)
        ]
        axes.plot([position] * len(values), values, "o", color="0.55", markersize=4)
        axes.plot([position - 0.25, position + 0.25], [group["mean"]] * 2, color="C0")
        if not math.isnan(group["spread"]):
            axes.errorbar(
                position, group["mean"], group["spread"], color="C0", capsize=4
            )
        axes.annotate(
            f"{group['mean']:.2f}",
            (position + 0.27, group["mean"]),
            verticalalignment="center",
            fontsize=8,
        )
    metrics = sorted({key[1] for key in summary})
    axes.set_xticks(range(len(labels)), labels, rotation=20, fontsize=8)
    axes.set_xlim(-0.6, len(labels) - 0.2)
    axes.set_ylabel(" / ".join(metrics).replace("_", " ") + ", %")
    axes.set_title(f"{experiment.title}\n{experiment.dataset}", fontsize=10)
    axes.grid(axis="y", alpha=0.3)
    figure.tight_layout()
    figure.savefig(file, format="png", dpi=110)
