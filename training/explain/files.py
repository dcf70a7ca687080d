"""Image files -> pictures of where a model sees what."""

import difflib
import json
import pathlib

from keras_attn.pipelines.files import write_then_rename
from keras_attn.pipelines.images.files import check_readable, image_files, read_images
from keras_attn.training.drawing import SHEET_ROWS, free_name, save, titles_of
from keras_attn.training.explain import class_maps, evidence, faithfulness, masks, warps
from keras_attn.training.explain.localizers import has_evidence
from keras_attn.training.explain.saliency import METHODS, TITLES, MethodExplainer
from keras_attn.training.explain.subject import load_explained


def explainer_of(model):
    """The module that explains and draws what a model answers.

    Each has `explain_images(model, images, class_names, titles)`, a list of
    explanations with the method `top(count)`; `picture(explanation, labels)`; and
    `sheet(explanations, rows)`.
    """
    if has_evidence(model):
        return evidence
    if "mask_1" in model.output:
        return masks
    return warps if "fields" in model.output else class_maps


def explain(
    path,
    images,
    output,
    classes=None,
    top=3,
    checkpoint="best",
    on_corrupt="error",
    method="auto",
    layer=None,
    pixels="0..255",
    metrics=False,
    say=print,
):
    """Draws maps of classes over image files.

    Args:
        path: Folder of a run, or a `.keras` file, also one that is not of this
            project.
        images: Paths of images and of folders of images.
        output: Folder of the pictures; made if it does not exist.
        classes: Names of the classes to draw; by default the most probable ones.
        top: How many of those.
        checkpoint: `best` or `last` model of a run.
        on_corrupt: `"error"`, or `"skip"` to leave out what cannot be decoded.
        method: `"auto"`, what the model itself tells, or `grad_cam` where that is
            nothing; or one of `keras_attn.training.explain.saliency.METHODS`.
        layer: Layer for `grad_cam` and `grad_cam_plus_plus`, the last map by default.
        pixels: For models of others, see `load_explained`.
        metrics: Whether to measure the maps, see
            `keras_attn.training.explain.faithfulness`.
        say: What is called with notes for the user.

    Returns:
        `(written, problems)`: the paths of the pictures, one an image and then the
        overview sheets, with metrics also of `metrics.json` and `metrics.md`; one
        `CorruptImageError` for each image left out.
    """
    if top < 1:
        raise ValueError(f"Expected `top` of at least 1. Received: top={top}")
    if method not in METHODS:
        raise ValueError(f"Expected `method` in {METHODS}. Received: {method!r}")
    files = image_files(images)
    subject = load_explained(path, checkpoint, pixels)
    if subject.note:
        say(subject.note)
    labels = None if classes is None else labels_of(classes, subject.class_names)
    explainer = _explainer(subject, method, layer, labels, top, metrics, say)
    pictures, kept, problems = read_images(files, subject.spec, on_corrupt)
    check_readable(kept, problems)
    titles = titles_of(kept)
    output = pathlib.Path(output)
    written, sheets, taken = [], [], set()
    # A sheet at a time, since the maps of many images take much memory.
    for page, start in enumerate(range(0, len(kept), SHEET_ROWS), 1):
        part = slice(start, start + SHEET_ROWS)
        explanations = explainer.explain_images(
            subject.model, pictures[part], subject.class_names, titles[part]
        )
        output.mkdir(parents=True, exist_ok=True)
        rows = [labels or explanation.top(top) for explanation in explanations]
        for explanation, row in zip(explanations, rows, strict=True):
            target = output / f"{free_name(explanation.title, taken)}.png"
            save(explainer.picture(explanation, row), target)
            written.append(target)
        target = output / ("overview.png" if page == 1 else f"overview_{page}.png")
        save(explainer.sheet(explanations, rows), target)
        sheets.append(target)
    if metrics:
        if explainer is class_maps:
            explainer = MethodExplainer(subject, "auto")
        sheets += _write_measures(faithfulness.measure(explainer, pictures), output)
    return written + sheets, problems


def _explainer(subject, method, layer, labels, top, metrics, say):
    """What explains the model: a module as of `explainer_of`, or `MethodExplainer`."""
    if layer is not None and method not in ("grad_cam", "grad_cam_plus_plus"):
        raise ValueError(
            "Expected `layer` with the methods grad_cam and grad_cam_plus_plus. "
            f"Received: layer={layer!r}, method={method!r}"
        )
    if method == "auto":
        own = explainer_of(subject.model) if subject.is_ours else class_maps
        if own is not class_maps:
            if metrics:
                raise ValueError(
                    "Expected a method whose maps can be measured, such as --method "
                    f"grad_cam. Received: auto, which for {subject.path} draws more "
                    "than maps of classes"
                )
            return own
        if subject.is_ours and "patch_logits" in subject.model.output:
            return own
        method = "grad_cam"
        say(
            f"{subject.path} tells no maps of its own; drawn are {TITLES[method]} maps."
        )
    return MethodExplainer(subject, method, layer, labels, top)


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
