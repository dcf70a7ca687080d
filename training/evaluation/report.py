"""A trained model and its images -> one HTML page on its quality.

The page needs nothing beside itself: charts and pictures are inside, and it forbids
the browser to load anything.
"""

import dataclasses
import datetime
import pathlib
from typing import NamedTuple

import matplotlib
import numpy as np
from markupsafe import Markup

from keras_attn.training.drawing import sheet_parts
from keras_attn.training.evaluation import report_charts
from keras_attn.training.evaluation.class_scores import (
    calibration,
    class_scores,
    confusion_matrix,
    most_confused,
    wilson_interval,
)
from keras_attn.training.evaluation.evaluate import (
    OTHER_DATA,
    evaluated,
    evaluation_data,
)
from keras_attn.training.evaluation.label_report import judged_labels
from keras_attn.training.evaluation.mistakes import mistakes_among
from keras_attn.training.explain.explainers import explainer_of
from keras_attn.training.explain.saliency import Saliency
from keras_attn.training.pages import (
    SMALL,
    check_name,
    figure_uri,
    image_uri,
    write_page,
)
from keras_attn.training.recipes.registry import RECIPES
from keras_attn.training.recipes.schema import Recipe
from keras_attn.training.runs.card import NAME as CARD
from keras_attn.training.runs.environment import commit, hardware, versions
from keras_attn.training.runs.outputs import softmax
from keras_attn.training.runs.state import load_progress

NAME = "report.html"
TEMPLATE = "evaluation_report.html"
LABELS_TEMPLATE = "labels_report.html"
CONFUSED_PAIRS = 12


def write_report(
    path,
    output=None,
    split=None,
    data=None,
    dataset=None,
    checkpoint="best",
    on_corrupt="error",
    mistakes=12,
    progress=None,
):
    """Evaluates a model and writes a page about it.

    The numbers are those of `keras_attn.training.evaluation.evaluate.evaluate`, which
    also records them for a run that is evaluated on its own data, as this does.

    Args:
        path: Folder of a run, or a `.keras` file, whose page has neither curves nor
            recipe.
        output: The HTML file; by default `report.html` in the folder of the run, or
            `MODEL_report.html` beside the model file.
        split, data, dataset, checkpoint, on_corrupt: See `evaluate`.
        mistakes: Number of the worst mistakes that are shown, at most.
        progress: Function from an activity, `Evaluated`, to one of the images done and
            their number.

    Returns:
        The path of the page. It is there when it is complete.

    Raises:
        ValueError: If `output` is not an HTML file, or the data do not fit.
        FileNotFoundError: If the model or the data are not there.
    """
    output = None if output is None else check_name(output)
    if mistakes < 0:
        raise ValueError(f"Expected `mistakes` of at least 0. Received: {mistakes}")
    progress = progress or (lambda activity: lambda *done: None)
    found = evaluation_data(path, split, data, dataset, checkpoint, on_corrupt)
    result, logits = evaluated(found, progress=progress("Evaluated"))
    trained = found.trained
    worst = mistakes_among(
        logits, found.images, found.labels, mistakes, trained.thresholds
    )
    probabilities = softmax(logits)
    if found.labels.ndim > 1:
        template, judged = LABELS_TEMPLATE, judged_labels(found, result, logits)
    else:
        template, judged = TEMPLATE, _judged(found, probabilities)
    content = {
        **_about(found, result),
        **judged,
        **_training(trained.run),
        "mistakes": explained(found, probabilities, worst, progress("Explained")),
        "other_data": OTHER_DATA,
        "has_own_maps": explainer_of(trained) is not None,
    }
    if output is not None:
        return write_page(output, template, content)
    try:
        return write_page(default_path(trained), template, content)
    except OSError:
        # A run that is read only.
        output = pathlib.Path(f"{trained.name}_{NAME}")
        return write_page(output, template, content)


def default_path(trained):
    """Default path of a model's report."""
    if trained.run is not None:
        return trained.run.workdir / NAME
    return pathlib.Path(trained.path).with_name(f"{trained.name}_{NAME}")


# ---- content of the page -----------------------------------------------------------


def _about(found, result):
    """The model, the images, and the environment that the page was made in."""
    trained, spec = found.trained, found.trained.spec
    return {
        "name": trained.name,
        "result": result,
        "has_run": trained.run is not None,
        "spec": spec,
        "parameters": f"{trained.model.count_params():,}",
        "outputs": ", ".join(trained.model.output),
        "environment": {
            "Report made": f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
            "Commit": commit(),
            "Versions": versions(),
            "Hardware": hardware(),
        },
    }


def _judged(found, probabilities):
    """Everything that is counted on the images."""
    labels, names = found.labels, found.trained.class_names
    matrix = confusion_matrix(labels, probabilities.argmax(axis=-1), len(names))
    measured = calibration(probabilities, labels)
    right = int(np.trace(matrix))
    frequent = int(matrix.sum(axis=1).argmax())
    return {
        "class_names": names,
        "interval": wilson_interval(right, len(labels)),
        "right": right,
        "most_frequent": (names[frequent], matrix[frequent].sum() / len(labels)),
        "calibration": measured,
        "bins": measured.filled,
        "reliability_chart": Markup(report_charts.reliability(measured)),
        "matrix": matrix.tolist(),
        "has_matrix_table": len(names) <= report_charts.NAMED_CLASSES,
        "confusion_chart": Markup(report_charts.confusion(matrix, names)),
        "confused": most_confused(matrix, CONFUSED_PAIRS),
        "classes": class_scores(matrix),
    }


def _training(run):
    """Curves, recipe and card of a run; nothing of them without one."""
    if run is None:
        return {"curves": None, "trained": {}, "recipe": [], "other": [], "card": None}
    progress = load_progress(run.checkpoints / "last.npz")
    curves = None
    if progress.history:
        curves = Markup(report_charts.curves(progress.history, progress.best_epoch))
    card = run.workdir / CARD
    return {
        "curves": curves,
        "trained": {
            "Epochs": f"{progress.epochs} of {run.recipe.epochs}",
            "Best epoch": progress.best_epoch + 1 if progress.best_epoch >= 0 else "–",
            "Time in training": str(datetime.timedelta(seconds=int(progress.seconds))),
        },
        "recipe": recipe_rows(run.recipe),
        "other": differing_fields(run.recipe),
        "card": card.read_text().strip() if card.is_file() else None,
    }


class RecipeRow(NamedTuple):
    """A field of a recipe as the page shows it.

    Args:
        field: Its name.
        value, default: Its values as texts; empty for a field without a default.
        changed: Whether the value is not the default.
    """

    field: str
    value: str
    default: str
    changed: bool


class Difference(NamedTuple):
    """A field whose value differs from that in the recipe of the same name."""

    field: str
    value: str
    there: str


def recipe_rows(recipe):
    """The `RecipeRow` of every field but the name."""
    defaults = Recipe(recipe.name, recipe.method).to_dict()
    return [
        RecipeRow(name, _shown(value), _shown(defaults[name]), value != defaults[name])
        for name, value in recipe.to_dict().items()
        if name != "name"
    ]


def differing_fields(recipe):
    """The `Difference` of every field that the recipe of that name sets otherwise."""
    named = RECIPES.get(recipe.name)
    if named is None:
        return []
    there = named.to_dict()
    return [
        Difference(name, _shown(value), _shown(there.get(name)))
        for name, value in recipe.to_dict().items()
        if value != there.get(name)
    ]


def _shown(value):
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


# ---- mistakes ----------------------------------------------------------------------


class ShownMistake(NamedTuple):
    """A mistake as the page shows it.

    Args:
        where: Name of its image.
        true, taken_for: Names of its class and of the predicted one; of a model of
            labels, where one of them is wrong or missed, the other is `None`.
        probability, probability_of_right: Probabilities of the wrong and of the right
            answer.
        image: Its pixels as a data URI.
        small: Whether to show them enlarged, each with sharp edges.
        picture: Data URI of the explanation of both classes, by the method's own
            explainer or Grad-CAM; `None` for models without any map.
    """

    where: str
    true: str
    taken_for: str
    probability: float
    probability_of_right: float
    image: str
    small: bool
    picture: str | None


def explained(found, probabilities, mistakes, progress=lambda *done: None):
    """The page's entry of each `Mistake`, as `ShownMistake`."""
    trained = found.trained
    names = [found.names[mistake.index] for mistake in mistakes]
    pictures = explanations(trained, mistakes, progress)
    return [
        ShownMistake(
            name,
            *(None if each is None else trained.class_names[each] for each in answer),
            mistake.probability,
            1 - mistake.probability
            if None in answer
            else probabilities[mistake.index, mistake.label],
            image_uri(mistake.image),
            max(mistake.image.shape[:2]) <= SMALL,
            picture,
        )
        for mistake, name, picture in zip(mistakes, names, pictures, strict=True)
        for answer in [(mistake.label, mistake.predicted)]
    ]


def explanations(trained, mistakes, progress=lambda *done: None):
    """The data URI of every mistake's explanation, or `None`.

    They show the model's own maps, or Grad-CAM for models without any.
    """
    explainer = explainer_of(trained) or Saliency("grad_cam")
    pictures = []
    for part in sheet_parts(len(mistakes)):
        labels = [
            [label for label in (each.predicted, each.label) if label is not None]
            for each in mistakes[part]
        ]
        try:
            found = _explained(explainer, trained, mistakes[part], labels)
        except ValueError:
            # No features that Grad-CAM could weigh.
            return [None] * len(mistakes)
        for explanation, shown in zip(found, labels, strict=True):
            # A dollar in a class name does not begin a formula.
            with matplotlib.rc_context({"text.parse_math": False}):
                pictures.append(figure_uri(explainer.picture(explanation, shown)))
            progress(len(pictures), len(mistakes))
    return pictures


def _explained(explainer, trained, mistakes, labels):
    titles = [f"image {mistake.index}" for mistake in mistakes]
    images = np.stack([mistake.image for mistake in mistakes])
    if not isinstance(explainer, Saliency):
        return explainer.explain(trained, images, titles)
    # Maps of an image's own two classes.
    rows = zip(images, titles, labels, strict=True)
    return [
        dataclasses.replace(explainer, labels=shown).explain(
            trained, image[None], [title]
        )[0]
        for image, title, shown in rows
    ]
