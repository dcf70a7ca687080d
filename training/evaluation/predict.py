"""Image files -> predicted classes."""

from typing import NamedTuple

from keras_attn.pipelines.images.files import (
    CHUNK,
    MANY,
    check_readable,
    image_files,
    read_images,
)
from keras_attn.pipelines.progress import counted
from keras_attn.training.runs.outputs import top_classes
from keras_attn.training.trained import load_trained


def ranked(probabilities, class_names, top=5):
    """The most probable classes of one image, the most probable first.

    Returns:
        List of dicts of `class`, its name, and `probability`.
    """
    if top < 1:
        raise ValueError(f"Expected `top` of at least 1. Received: top={top}")
    return [
        {"class": class_names[label], "probability": float(probabilities[label])}
        for label in top_classes(probabilities, top)
    ]


class Predicted(NamedTuple):
    """Classes of image files.

    Args:
        predictions: For each image a dict of `image`, its path, and `predictions`, see
            `ranked`; of labels that do not exclude each other also `labels`, those
            from their thresholds on.
        problems: One `CorruptImageError` for each image left out.
    """

    predictions: list[dict]
    problems: list


def predict(
    path, images, top=5, checkpoint="best", on_corrupt="error", say=lambda text: None
):
    """Predicts the classes of image files.

    Args:
        path: Folder of a run, or a model; or a `ModelSource`.
        images: Paths of images and of folders of images.
        top: Number of classes per image.
        checkpoint: `best` or `last` model of a run.
        on_corrupt: `"error"`, or `"skip"` to leave out what cannot be decoded.
        say: Function that is called with notes for the user.

    Returns:
        `Predicted`.
    """
    files = image_files(images)
    trained = load_trained(path, checkpoint)
    if trained.note:
        say(trained.note)
    names = trained.class_names
    predictions, problems = [], []

    def labels(row):
        return {"labels": trained.labels_of(row)} if trained.several_labels else {}

    show = counted("Decoded", MANY)
    for start in range(0, len(files), CHUNK):
        part = files[start : start + CHUNK]
        pixels, kept, corrupt = read_images(
            part,
            trained.spec,
            on_corrupt,
            lambda done, total, before=start: show(before + done, len(files)),
        )
        problems += corrupt
        if not kept:
            continue
        if start == 0 and (warning := trained.pixels_warning(pixels, kept)):
            say(warning)
        probabilities = trained.probabilities(pixels)
        predictions += [
            {"image": str(file), "predictions": ranked(row, names, top), **labels(row)}
            for file, row in zip(kept, probabilities, strict=True)
        ]
    check_readable(predictions, problems)
    return Predicted(predictions, problems)


def format_predictions(predictions):
    """A table of images and their classes, the most probable first."""
    width = max(len(entry["image"]) for entry in predictions)
    lines = []
    for entry in predictions:
        name = entry["image"]
        for choice in entry["predictions"]:
            percent = 100 * choice["probability"]
            lines.append(f"{name:<{width}}  {percent:6.2f} %  {choice['class']}")
            name = ""
        if "labels" in entry:
            lines.append(f"{'':<{width}}  labels: {', '.join(entry['labels']) or '–'}")
    return "\n".join(lines)
