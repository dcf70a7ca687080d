"""A trained model and its images -> one HTML page that says how good it is.

The page needs nothing beside itself: charts and pictures are inside, and it forbids
the browser to load anything.
"""

import base64
import dataclasses
import datetime
import hashlib
import io
import pathlib

import jinja2
import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from keras_attn.pipelines.files import write_then_rename
from keras_attn.training.drawing import SHEET_ROWS
from keras_attn.training.evaluation import report_charts
from keras_attn.training.evaluation.class_scores import (
    calibration,
    class_scores,
    confusion_matrix,
    most_confused,
    wilson_interval,
)
from keras_attn.training.evaluation.evaluate import evaluated, evaluation_data
from keras_attn.training.evaluation.mistakes import mistakes_among
from keras_attn.training.explain import class_maps
from keras_attn.training.explain.files import explainer_of
from keras_attn.training.explain.saliency import MethodExplainer
from keras_attn.training.explain.subject import ExplainedModel
from keras_attn.training.recipes.registry import RECIPES
from keras_attn.training.runs.card import NAME as CARD
from keras_attn.training.runs.environment import commit, hardware, versions
from keras_attn.training.runs.outputs import softmax
from keras_attn.training.runs.state import load_progress

NAME = "report.html"
TEMPLATE = "evaluation_report.html"
CONFUSED_PAIRS = 12
# Pictures of explanations are no wider, in pixels.
WIDEST = 1600
# Images up to this side are kept as they are, and shown with their pixels.
SMALL = 96


def write_report(
    path,
    out=None,
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
    also writes them down for a run that is evaluated on its own data, as this does.

    Args:
        path: Folder of a run, or a `.keras` file; of the latter the page has neither
            curves nor recipe.
        out: The HTML file; by default `report.html` in the folder of the run, or
            `MODEL_report.html` beside the model file.
        split, data, dataset, checkpoint, on_corrupt: As in `evaluate`.
        mistakes: How many of the worst mistakes are shown, at most.
        progress: Called with (what is done, how many, of how many) now and then.

    Returns:
        The path of the page. It is there when it is complete.

    Raises:
        ValueError: If `out` is no HTML file, or the data are unfit.
        FileNotFoundError: If the model or the data are not there.
    """
    if out is not None and pathlib.Path(out).suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"Expected the name of an HTML file. Received: {out}")
    if mistakes < 0:
        raise ValueError(f"Expected `mistakes` of at least 0. Received: {mistakes}")
    progress = progress or (lambda *done: None)
    found = evaluation_data(path, split, data, dataset, checkpoint, on_corrupt)
    result, logits = evaluated(
        found, progress=lambda *done: progress("Evaluated", *done)
    )
    worst = mistakes_among(logits, found.images, found.labels, mistakes)
    probabilities = softmax(logits)
    content = {
        **_about(found, result),
        **_judged(found, probabilities),
        **_training(found.trained.run),
        "mistakes": explained(found, probabilities, worst, progress),
        "tells": tells(found.trained.model),
    }
    out = pathlib.Path(out) if out else default_path(found.trained)
    out.parent.mkdir(parents=True, exist_ok=True)
    with write_then_rename(out) as file:
        file.write(page(content).encode())
    return out


def default_path(trained):
    """Where the report of a model lies if nothing else is said."""
    if trained.run is not None:
        return trained.run.workdir / NAME
    return trained.path.with_name(f"{trained.path.stem}_{NAME}")


def page(content):
    """The HTML text of what the template shows; all text in it is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["percent"] = percent
    script = environment.loader.get_source(environment, "sortable_tables.js")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(TEMPLATE).render(
        content, script=Markup(script), script_digest=digest
    )


def percent(share, digits=1):
    """A share for people; a dash where there is none."""
    return "–" if share is None or np.isnan(share) else f"{100 * share:.{digits}f} %"


# ---- what the page tells -----------------------------------------------------------


def _about(found, result):
    """The model, the images, and where the page was made."""
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
        "bins": [
            each
            for each in zip(
                measured.edges[:-1],
                measured.edges[1:],
                measured.counts.tolist(),
                measured.confidence,
                measured.accuracy,
                strict=True,
            )
            if each[2]
        ],
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


def recipe_rows(recipe):
    """`(field, value, default, changed)` of every field but the name."""
    rows = []
    for field in dataclasses.fields(recipe):
        if field.name == "name":
            continue
        value, default = getattr(recipe, field.name), field.default
        known = default is not dataclasses.MISSING
        rows.append(
            (
                field.name,
                _shown(value),
                _shown(default) if known else "",
                known and value != default,
            )
        )
    return rows


def differing_fields(recipe):
    """`(field, value, value there)` where the recipe of that name has another one."""
    named = RECIPES.get(recipe.name)
    if named is None:
        return []
    return [
        (field.name, _shown(getattr(recipe, field.name)), _shown(there))
        for field in dataclasses.fields(recipe)
        if (there := getattr(named, field.name)) != getattr(recipe, field.name)
    ]


def _shown(value):
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


# ---- mistakes ----------------------------------------------------------------------


def explained(found, probabilities, mistakes, progress=lambda *done: None):
    """For each `Mistake` a dict of what the page shows of it.

    Its `picture` is the explanation of the wrong class and of the right one, drawn by
    the method's own explainer, or Grad-CAM; `None` for models that have no map.
    """
    trained = found.trained
    names = [found.names[mistake.index] for mistake in mistakes]
    pictures = explanations(trained, mistakes, progress)
    return [
        {
            "where": name,
            "is": trained.class_names[mistake.label],
            "taken_for": trained.class_names[mistake.predicted],
            "probability": mistake.probability,
            "probability_of_right": probabilities[mistake.index, mistake.label],
            "image": image_uri(mistake.image),
            "small": max(mistake.image.shape[:2]) <= SMALL,
            "picture": picture,
        }
        for mistake, name, picture in zip(mistakes, names, pictures, strict=True)
    ]


def explanations(trained, mistakes, progress=lambda *done: None):
    """The data URI of every mistake's explanation, or `None`.

    They are what the model itself tells; of models that tell nothing, Grad-CAM.
    """
    own, pictures = tells(trained.model), []
    # A few at a time, since maps take much memory.
    step = SHEET_ROWS if own else 1
    for start in range(0, len(mistakes), step):
        part = mistakes[start : start + step]
        titles = [f"image {mistake.index}" for mistake in part]
        images = np.stack([mistake.image for mistake in part])
        explainer = explainer_of(trained.model) if own else _grad_cam(trained, *part)
        try:
            found = explainer.explain_images(
                trained.model, images, trained.class_names, titles
            )
        except ValueError:
            # No features that Grad-CAM could weigh.
            return [None] * len(mistakes)
        for mistake, explanation in zip(part, found, strict=True):
            labels = [mistake.predicted, mistake.label]
            # A dollar in a class name is no formula.
            with matplotlib.rc_context({"text.parse_math": False}):
                pictures.append(figure_uri(explainer.picture(explanation, labels)))
            progress("Explained", len(pictures), len(mistakes))
    return pictures


def tells(model):
    """Whether a model has maps among its outputs that explain its answers."""
    return explainer_of(model) is not class_maps or "patch_logits" in model.output


def _grad_cam(trained, mistake):
    subject = ExplainedModel(
        trained.model, trained.path, trained.spec, trained.class_names, trained.run
    )
    return MethodExplainer(
        subject, "grad_cam", labels=[mistake.predicted, mistake.label]
    )


def figure_uri(figure):
    """A figure as a data URI."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return image_uri(np.asarray(canvas.buffer_rgba())[..., :3], WIDEST)


def image_uri(pixels, widest=None):
    """8-bit pixels as a data URI: small ones exact, others as WebP."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if widest and image.width > widest:
        image.thumbnail((widest, image.height))
    content = io.BytesIO()
    kind = "png" if max(image.size) <= SMALL else "webp"
    image.save(content, kind, **({} if kind == "png" else {"quality": 85}))
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
