"""Studies: measures of several trained runs of one seed together.

Each module without an underscore is a `keras_attn.training.experiments.protocol.Study`.
"""

import importlib
import pkgutil

from keras_attn._checks import one_of

STUDIES = tuple(
    module.name
    for module in pkgutil.iter_modules(__path__)
    if not module.name.startswith("_")
)


def get_study(name):
    """The `Study` of that name.

    Raises:
        ValueError: If there is none; the message names the nearest.
    """
    one_of("study", name, STUDIES)
    return importlib.import_module(f"{__name__}.{name}")


def figure_of(study, rows):
    """The study's own figure of the rows of a results file, or `None`."""
    draw = getattr(study, "figure", None)
    return draw(rows) if draw and rows else None
