"""Studies: what is measured on several trained runs of one seed together.

Each module has `study(runs, sources)`, from dicts of the rows' labels to `Run` and to
the `Source` at the run's image size, to a list of `(row, metric, value)`.
"""

import importlib


def study_of(experiment):
    """The function of the experiment's study."""
    return importlib.import_module(f"training.studies.{experiment.study}").study
