"""Image files -> predicted classes."""

import pathlib

from keras_attn.preprocessing import ImagePreprocessing
from pipelines.decoding import CorruptImageError, decode_files
from pipelines.layouts import SUFFIXES
from training.trained import load_trained, outputs_of, softmax, with_outputs

# Images that are in memory at a time.
CHUNK = 1024


def image_files(paths):
    """Files as they are given, and all images below folders, sorted.

    Hidden files and folders are left out, and what is named twice comes once.

    Raises:
        FileNotFoundError: If a path does not exist, or a folder holds no images.
    """
    files = []
    for path in map(pathlib.Path, paths):
        if path.is_dir():
            inside = [
                file
                for file in sorted(path.rglob("*"))
                if file.suffix.lower() in SUFFIXES
                and file.is_file()
                and not any(
                    part.startswith(".") for part in file.relative_to(path).parts
                )
            ]
            if not inside:
                raise FileNotFoundError(
                    f"Expected images ({', '.join(SUFFIXES)}). "
                    f"Received: {path}, a folder without any."
                )
            files += inside
        elif path.exists():
            files.append(path)
        else:
            raise FileNotFoundError(
                f"Expected an image or a folder. Received: {path}, which does not exist"
            )
    return list(dict.fromkeys(files))


def read_images(files, spec, on_corrupt="error"):
    """Decodes files and fits them to the size of an `ImageSpec`, as training does.

    Args:
        files: Paths.
        spec: `ImageSpec`.
        on_corrupt: `"error"`, or `"skip"` to leave out what cannot be decoded.

    Returns:
        `(images, kept, problems)`: the images, 8-bit; the paths that they are from;
        one `CorruptImageError` for each path left out.

    Raises:
        CorruptImageError: If a file cannot be decoded and is not to be skipped.
    """
    if on_corrupt not in ("error", "skip"):
        raise ValueError(
            "Expected on_corrupt to be 'error' or 'skip'. "
            f"Received: on_corrupt={on_corrupt!r}"
        )
    images, kept, problems = decode_files(
        lambda index: files[index].read_bytes(),
        [str(file) for file in files],
        (spec.height, spec.width),
        ImagePreprocessing(spec).fit_size,
    )
    if problems and on_corrupt == "error":
        first = problems[0]
        others = f" (and {len(problems) - 1} more files)" if len(problems) > 1 else ""
        raise CorruptImageError(
            first.where, f"{first.reason}{others}. --on-corrupt skip leaves such out."
        )
    return images, [files[index] for index in kept], problems


def check_readable(kept, problems):
    """Raises if there was no image that could be decoded."""
    if not len(kept):
        raise ValueError(f"Expected a readable image. Received: {problems[0]}")


def top_classes(probabilities, class_names, top=5):
    """The most probable classes of one image, the most probable first."""
    if top < 1:
        raise ValueError(f"Expected `top` of at least 1. Received: top={top}")
    order = (-probabilities).argsort(kind="stable")[:top]
    return [
        {"class": class_names[label], "probability": float(probabilities[label])}
        for label in order
    ]


def predict(path, images, top=5, checkpoint="best", on_corrupt="error"):
    """Predicts the classes of image files.

    Args:
        path: Folder of a run, or a `.keras` file.
        images: Paths of images and of folders of images.
        top: Number of classes an image.
        checkpoint: `best` or `last` model of a run.
        on_corrupt: `"error"`, or `"skip"` to leave out what cannot be decoded.

    Returns:
        `(predictions, problems)`: for each image a dict of `image` and
        `predictions`, a list of dicts of `class` and `probability`; and one
        `CorruptImageError` for each image left out.
    """
    files = image_files(images)
    trained = load_trained(path, checkpoint)
    model = with_outputs(trained.model, ["logits"])
    names = trained.class_names
    predictions, problems = [], []
    for start in range(0, len(files), CHUNK):
        part = files[start : start + CHUNK]
        pixels, kept, corrupt = read_images(part, trained.spec, on_corrupt)
        problems += corrupt
        if not kept:
            continue
        probabilities = softmax(outputs_of(model, pixels)["logits"])
        predictions += [
            {"image": str(file), "predictions": top_classes(row, names, top)}
            for file, row in zip(kept, probabilities, strict=True)
        ]
    check_readable(predictions, problems)
    return predictions, problems


def format_predictions(predictions):
    """A table: for each image its classes, the most probable first."""
    width = max(len(entry["image"]) for entry in predictions)
    lines = []
    for entry in predictions:
        name = entry["image"]
        for choice in entry["predictions"]:
            percent = 100 * choice["probability"]
            lines.append(f"{name:<{width}}  {percent:6.2f} %  {choice['class']}")
            name = ""
    return "\n".join(lines)
