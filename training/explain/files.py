"""Image files -> pictures of a model's explanations."""

import dataclasses
import difflib
import json
import pathlib
from typing import NamedTuple

from keras_attn.pipelines.files import write_then_rename
from keras_attn.pipelines.images.files import check_readable, image_files, read_images
from keras_attn.pipelines.images.fonts import numbered
from keras_attn.pipelines.progress import counted
from keras_attn.training import drawing
from keras_attn.training.adoption import ModelSource
from keras_attn.training.explain import faithfulness
from keras_attn.training.explain.explainers import explainer_of
from keras_attn.training.explain.names import AUTO, METHODS, ON_A_LAYER, TITLES
from keras_attn.training.explain.saliency import Saliency
from keras_attn.training.trained import load_trained


class Explained(NamedTuple):
    """Explanations that were written.

    Args:
        written: Paths of the pictures, one per image and then the overview sheets; with
            metrics also those of `metrics.json` and `metrics.md`.
        problems: One `CorruptImageError` for each image left out.
    """

    written: list[pathlib.Path]
    problems: tuple


def explain(
    path,
    images,
    output,
    classes=None,
    top=3,
    checkpoint="best",
    on_corrupt="error",
    method=AUTO,
    layer=None,
    head=None,
    pixels=None,
    metrics=False,
    say=print,
):
    """Draws maps of classes over image files.

    Args:
        path: Folder of a run, or a model; or a `ModelSource`.
        images: Paths of images and of folders of images.
        output: Folder of the pictures; made if it does not exist.
        classes: Names of the classes to draw; by default the most probable ones.
        top: Number of the most probable classes.
        checkpoint: `best` or `last` model of a run.
        on_corrupt: `"error"`, or `"skip"` to leave out what cannot be decoded.
        method: `"auto"`, the maps that the model itself returns, or `grad_cam` where
            there are none; or one of `keras_attn.training.explain.names.METHODS`.
        layer: Layer for methods on the features of one; `None`: that of
            `keras_attn.explain.last_map`.
        head, pixels: See `ModelSource`, for a path alone.
        metrics: Whether to measure the maps, see
            `keras_attn.training.explain.faithfulness`.
        say: Function that is called with notes for the user.

    Returns:
        `Explained`.
    """
    _check(method, layer, top)
    files = image_files(images)
    if head is not None or pixels is not None:
        path = dataclasses.replace(ModelSource.of(path), output=head, pixels=pixels)
    subject = load_trained(path, checkpoint)
    if subject.note:
        say(subject.note)
    if note := numbered(subject.class_names):
        say(note)
    labels = None if classes is None else labels_of(classes, subject.class_names)
    explainer = _chosen(subject, method, layer, labels, top, say)
    if metrics and not explainer.measurable:
        raise ValueError(
            "Expected a method whose maps can be measured, such as --method grad_cam. "
            f"Received: {method}, which for {subject.path} draws more than maps of "
            "classes"
        )
    pictures, kept, problems = read_images(files, subject.spec, on_corrupt)
    check_readable(kept, problems)
    titles = drawing.titles_of(kept)
    if warning := subject.pixels_warning(pictures, titles):
        say(warning)
    output = pathlib.Path(output)
    written, taken = [], set()
    show = counted("Drew", least=drawing.SHEET_ROWS)

    def pages():
        # A sheet at a time, since the maps of many images take much memory.
        for part in drawing.sheet_parts(len(kept)):
            explanations = explainer.explain(subject, pictures[part], titles[part])
            output.mkdir(parents=True, exist_ok=True)
            rows = [labels or explanation.top(top) for explanation in explanations]
            for explanation, row in zip(explanations, rows, strict=True):
                written.append(
                    output / f"{drawing.free_name(explanation.title, taken)}.png"
                )
                drawing.save(explainer.picture(explanation, row), written[-1])
                show(len(written), len(kept))
            yield explainer.sheet(explanations, rows)

    sheets = drawing.write_pages(pages(), output)
    if metrics:
        measured = faithfulness.measure(explainer, subject, pictures)
        sheets += _write_measures(measured, output)
    return Explained(written + sheets, problems)


def _check(method, layer, top):
    if top < 1:
        raise ValueError(f"Expected `top` of at least 1. Received: top={top}")
    if method not in METHODS:
        raise ValueError(f"Expected `method` in {METHODS}. Received: {method!r}")
    if layer is not None and method not in ON_A_LAYER:
        raise ValueError(
            f"Expected `layer` with one of the methods {', '.join(ON_A_LAYER)}. "
            f"Received: layer={layer!r}, method={method!r}"
        )


def _chosen(subject, method, layer, labels, top, say):
    """The `Explainer` of a method; for `auto`, the model's own or Grad-CAM."""
    if method == AUTO:
        own = explainer_of(subject)
        if own is not None:
            return own
        method = "grad_cam"
        say(f"{subject.path} has no maps of its own; drawing {TITLES[method]} maps.")
    return Saliency(method, layer, labels, top)


def _write_measures(result, output):
    """Writes the metrics as JSON and as Markdown; the paths."""
    texts = {
        "metrics.json": json.dumps(result, indent=2) + "\n",
        "metrics.md": faithfulness.format_measures(result),
    }
    for name, text in texts.items():
        with write_then_rename(output / name) as file:
            file.write(text.encode())
    return [output / name for name in texts]


def labels_of(classes, class_names):
    """Labels of class names.

    Raises:
        ValueError: For a name that is not there; the message names the nearest.
    """
    for name in classes:
        if name not in class_names:
            nearest = difflib.get_close_matches(name, class_names, 1, cutoff=0.0)
            raise ValueError(
                f"Expected classes of the model. Received: {name!r}; the nearest is "
                f"{nearest[0]!r}."
            )
    return [class_names.index(name) for name in classes]
