"""A run's card: its model, its data and its accuracy."""

from keras_attn.pipelines.files import write_then_rename
from keras_attn.training.runs.environment import commit, versions
from keras_attn.training.runs.state import load_progress

NAME = "card.md"
ACCURACIES = {
    "val_logits_accuracy": "Validation accuracy",
    "val_accuracy": "Validation accuracy",
    "val_knn_accuracy": "Validation accuracy of nearest neighbours",
}


def write_card(run, spec):
    """Writes `card.md` into the folder of a run.

    Args:
        run: `keras_attn.training.runs.run.Run` with at least one finished epoch.
        spec: `ImageSpec` of its images.
    """
    facts = {
        **facts_of(run, spec),
        "Commit": commit(),
        "Versions": versions(),
    }
    lines = [f"- {name}: {value}" for name, value in facts.items()]
    with write_then_rename(run.workdir / NAME) as file:
        file.write("\n".join([f"# {run.recipe.name}", "", *lines, ""]).encode())


def kept_facts(run):
    """The lines of a run's card by their names; none where there is no card."""
    path = run.workdir / NAME
    if not path.exists():
        return {}
    lines = path.read_text().splitlines()
    return dict(
        line.removeprefix("- ").split(": ", 1)
        for line in lines
        if line.startswith("- ") and ": " in line
    )


def facts_of(run, spec):
    """Facts about a run, but for who trained it: names to texts; see `write_card`."""
    recipe = run.recipe
    progress = load_progress(run.checkpoints / "last.npz")
    return {
        "Method": f"{recipe.method}, {recipe.backbone}, {recipe.row}",
        "Data set": f"{recipe.dataset}, split {recipe.split}",
        "Licence of the data": spec.licence or "unknown",
        "Source of the data": spec.source or "generated or given by path",
        "Images": f"{spec.height} x {spec.width} pixels",
        "Classes": len(spec.class_names),
        "Initial weights": recipe.options.initial or "random",
        "Seed": recipe.seed,
        "Epochs": f"{progress.epochs} of {recipe.epochs}",
        **progress.notes,
        **{
            f"{title}, {which} epoch": f"{percent:.2f} %"
            for title, which, _, percent in accuracies(progress)
        },
    }


def accuracies(progress):
    """`(title, which, epoch, per cent)` of the validation after two epochs.

    `which` of them is "best" or "last"; neither where nothing was validated.
    """
    if not progress.history:
        return
    for which, epoch in (("best", progress.best_epoch), ("last", -1)):
        logs = progress.history[epoch]
        for name, title in ACCURACIES.items():
            if name in logs:
                yield title, which, logs["epoch"], 100 * logs[name]
