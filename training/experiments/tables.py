"""A Markdown table and a plot of a results file."""

import math

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from keras_attn.pipelines.files import write_then_rename
from keras_attn.training.experiments import results

# Metrics of a study side by side.
PANELS_PER_LINE = 3


def write(experiment, path, command, figure=None, notes=()):
    """Writes `PATH.md` and `PATH.png` beside the results file, if it has rows.

    Args:
        experiment: `Experiment` whose rows order the table.
        path: The CSV file.
        command: Command that makes these results.
        figure: Figure to save in place of the plot of the values.
        notes: Sentences to add below the table.
    """
    rows = results.read_rows(path)
    if not rows:
        return
    order = {row.label: number for number, row in enumerate(experiment.rows)}
    summary = dict(
        sorted(
            results.summarize(rows).items(),
            key=lambda item: (
                item[0].epochs,
                order.get(item[0].row, len(order)),
            ),
        )
    )
    text = markdown(experiment, summary, rows, command, path.stem, notes)
    with write_then_rename(path.with_suffix(".md")) as file:
        file.write(text.encode())
    figure = figure or plot(experiment, summary, rows)
    with write_then_rename(path.with_suffix(".png")) as file:
        figure.savefig(file, format="png", dpi=110)


def markdown(experiment, summary, rows, command, stem, notes=()):
    """The table as text, with mean, spread, seeds and the environment of the runs."""
    lines = [
        f"# {experiment.title}, {experiment.dataset}",
        "",
        f"Made by `{command}`. Mean and sample standard deviation over seeds.",
        "",
        "| row | metric | epochs | value | seeds | paper | seconds per run |",
        "|---|---|---|---|---|---|---|",
    ]
    for (label, metric, epochs), found in summary.items():
        paper = "" if found.paper_value is None else f"{found.paper_value:.2f}"
        seeds = ", ".join(map(str, found.seeds))
        lines.append(
            f"| {label} | {metric} | {epochs} | {found.text} "
            f"| {seeds} | {paper} | {found.seconds:.0f} |"
        )
    lines += ["", f"![{experiment.title}]({stem}.png)"]
    for note in notes:
        lines += ["", note]
    for name in ("commit", "versions", "hardware"):
        lines += ["", f"{name}: {'; '.join(sorted({row[name] for row in rows}))}"]
    return "\n".join(lines) + "\n"


def plot(experiment, summary, rows):
    """Every run as a dot, and every row's mean; a line where the rows are numbers."""
    values = {key: [] for key in summary}
    for row in rows:
        values[row["row"], row["metric"], row["epochs"]].append(row["value"])
    numbers = all(_is_number(label) for label, _, _ in summary)
    metrics = list(dict.fromkeys(metric for _, metric, _ in summary))
    # Rows side by side can be compared within a metric only.
    panels = [metrics] if numbers else [[metric] for metric in metrics]
    columns = min(len(panels), PANELS_PER_LINE)
    lines = math.ceil(len(panels) / columns)
    most = max(sum(metric in panel for _, metric, _ in summary) for panel in panels)
    width = 6.4 if numbers else max(5.0, (0.75 if columns > 1 else 1.15) * most + 2.0)
    figure = Figure(figsize=(width * columns, 4.2 * lines))
    FigureCanvasAgg(figure)
    draw = _draw_line if numbers else _draw_rows
    for number, panel in enumerate(panels, 1):
        axes = figure.add_subplot(lines, columns, number)
        shown = {key: group for key, group in summary.items() if key[1] in panel}
        draw(axes, shown, values)
        axes.set_ylabel(_axis(panel, shown.values()))
        axes.grid(axis="y", alpha=0.3)
    figure.suptitle(f"{experiment.title}\n{experiment.dataset}", fontsize=10)
    figure.tight_layout()
    return figure


def _axis(metrics, summaries):
    """The label of the axis of some metrics, with the unit that they share."""
    label = " / ".join(sorted(metrics)).replace("_", " ")
    units = {summary.unit or "" for summary in summaries}
    return f"{label}, {units.pop()}".removesuffix(", ") if len(units) == 1 else label


def _is_number(text):
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _draw_rows(axes, summary, values):
    several = len({epochs for _, _, epochs in summary}) > 1
    labels = []
    for position, (key, group) in enumerate(summary.items()):
        label, _, epochs = key
        labels.append(f"{label}\n{epochs} epochs" if several else label)
        axes.plot(
            [position] * len(values[key]), values[key], "o", color="0.55", markersize=4
        )
        axes.plot([position - 0.25, position + 0.25], [group.mean] * 2, color="C0")
        if not math.isnan(group.spread):
            axes.errorbar(position, group.mean, group.spread, color="C0", capsize=4)
        axes.annotate(
            f"{group.mean:.2f}",
            (position + 0.28, group.mean),
            verticalalignment="center",
            fontsize=8,
        )
    axes.set_xticks(
        range(len(labels)),
        labels,
        rotation=20,
        horizontalalignment="right",
        rotation_mode="anchor",
        fontsize=8,
    )
    axes.set_xlim(-0.6, len(labels) - 0.2)


def _draw_line(axes, summary, values):
    """One line for each number of epochs, with a band of the spread."""
    lines = {}
    for (label, metric, epochs), group in summary.items():
        key = (label, metric, epochs)
        lines.setdefault((metric, epochs), []).append((float(label), key, group))
    for number, ((metric, epochs), points) in enumerate(lines.items()):
        points.sort(key=lambda point: point[0])
        colour = f"C{number}"
        positions = [position for position, _, _ in points]
        means = [group.mean for _, _, group in points]
        spreads = [
            0.0 if math.isnan(group.spread) else group.spread for _, _, group in points
        ]
        axes.plot(positions, means, color=colour, label=f"{metric}, {epochs} epochs")
        axes.fill_between(
            positions,
            [mean - spread for mean, spread in zip(means, spreads, strict=True)],
            [mean + spread for mean, spread in zip(means, spreads, strict=True)],
            color=colour,
            alpha=0.15,
            linewidth=0,
        )
        for position, key, _ in points:
            axes.plot(
                [position] * len(values[key]), values[key], "o", color=colour, ms=4
            )
    if len(lines) > 1:
        axes.legend(fontsize=8)
    axes.set_xticks(sorted({point[0] for points in lines.values() for point in points}))
