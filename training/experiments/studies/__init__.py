"""Studies: what is measured on several trained runs of one seed together.

Each module has `study(runs, sources)`, from dicts of the rows' labels to `Run` and to
the `Source` at the run's image size, to a list of `(row, metric, value)`; and perhaps
`picture(rows)`, from the lines of the results file to a matplotlib `Figure`.
"""

import importlib


def study_of(experiment):
    """The module of the experiment's study."""
    return importlib.import_module(
        f"keras_attn.training.experiments.studies.{experiment.study}"
    )


def picture_of(experiment, rows):
    """The study's own picture, or `None`."""
    draw = getattr(study_of(experiment), "picture", None)
    return draw(rows) if draw and rows else None
