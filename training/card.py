"""A run's card: what its model is, what it learned from, and how well."""

from training import results
from training.resume import load_progress
from training.run import write_then_rename

NAME = "card.md"


def write_card(run, spec):
    """Writes `card.md` into the folder of a run.

    Args:
        run: `training.run.Run` with at least one finished epoch.
        spec: `ImageSpec` of its images.
    """
    recipe = run.recipe
    progress = load_progress(run.checkpoints / "last.npz")
    facts = {
        "Method": f"{recipe.method}, {recipe.backbone}, {recipe.row}",
        "Data set": f"{recipe.dataset}, split {recipe.split}",
        "Licence of the data": spec.licence or "unknown",
        "Source of the data": spec.source or "generated or given by path",
        "Images": f"{spec.height} x {spec.width} pixels",
        "Classes": len(spec.class_names),
        "Initial weights": recipe.initial or "random",
        "Epochs": f"{progress.epochs} of {recipe.epochs}",
        **_accuracies(progress),
        "Commit": results.commit(),
        "Versions": results.versions(),
    }
    lines = [f"- {name}: {value}" for name, value in facts.items()]
    with write_then_rename(run.workdir / NAME) as file:
        file.write("\n".join([f"# {recipe.name}", "", *lines, ""]).encode())


def _accuracies(progress):
    """Validation accuracy of the best and the last epoch, in per cent."""
    found = {}
    for which, epoch in (("best", progress.best_epoch), ("last", -1)):
        for name in ("val_logits_accuracy", "val_accuracy"):
            if name in progress.history[epoch]:
                value = 100 * progress.history[epoch][name]
                found[f"Validation accuracy, {which} epoch"] = f"{value:.2f} %"
    return found
