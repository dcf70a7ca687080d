"""Image files -> pictures of where a model sees what."""

import difflib
import pathlib

from training import (
    attention_masks_pictures,
    class_maps,
    evidence_maps,
    warping_fields,
)
from training.drawing import SHEET_ROWS, free_name, save, titles_of
from training.localizers import has_evidence
from training.predict import check_readable, image_files, read_images
from training.trained import load_trained


def explainer_of(model):
    """The module that explains and draws what a model answers.

    Each has `explain_images(model, images, class_names, titles)`, a list of
    explanations with the method `top(count)`; `picture(explanation, labels)`; and
    `sheet(explanations, rows)`.
    """
    if has_evidence(model):
        return evidence_maps
    if "mask_1" in model.output:
        return attention_masks_pictures
    return warping_fields if "fields" in model.output else class_maps


def explain(
    path,
    images,
    output,
    classes=None,
    top=3,
    checkpoint="best",
    on_corrupt="error",
):
    """Draws maps of classes over image files.

    Args:
        path: Folder of a run, or a `.keras` file.
        images: Paths of images and of folders of images.
        output: Folder of the pictures; made if it does not exist.
        classes: Names of the classes to draw; by default the most probable ones.
        top: How many of those.
        checkpoint: `best` or `last` model of a run.
        on_corrupt: `"error"`, or `"skip"` to leave out what cannot be decoded.

    Returns:
        `(written, problems)`: the paths of the pictures, one an image and then the
        overview sheets; one `CorruptImageError` for each image left out.
    """
    if top < 1:
        raise ValueError(f"Expected `top` of at least 1. Received: top={top}")
    files = image_files(images)
    trained = load_trained(path, checkpoint)
    labels = None if classes is None else labels_of(classes, trained.class_names)
    pixels, kept, problems = read_images(files, trained.spec, on_corrupt)
    check_readable(kept, problems)
    titles = titles_of(kept)
    explainer = explainer_of(trained.model)
    output = pathlib.Path(output)
    written, sheets, taken = [], [], set()
    # A sheet at a time, since the maps of many images take much memory.
    for page, start in enumerate(range(0, len(kept), SHEET_ROWS), 1):
        part = slice(start, start + SHEET_ROWS)
        explanations = explainer.explain_images(
            trained.model, pixels[part], trained.class_names, titles[part]
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
    return written + sheets, problems


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
