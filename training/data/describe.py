"""Contents of a data set: counts of its classes and a contact sheet."""

import inspect
import pathlib
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from keras_attn.pipelines.files import write_then_rename
from keras_attn.pipelines.generated.dataset import generated_source
from keras_attn.pipelines.images.contact_sheet import (
    ROWS,
    contact_sheet,
    counts_table,
    reduced,
)
from keras_attn.pipelines.images.decoding import CorruptImageError
from keras_attn.pipelines.images.fonts import numbered
from keras_attn.pipelines.sources.catalogue import KNOWN
from keras_attn.pipelines.sources.load import SOURCE_NAMES, load_source
from keras_attn.pipelines.sources.splits import missing_classes, split_indices
from keras_attn.training.recipes.assignments import split_assignment


class FirstImages(NamedTuple):
    """The first readable images of some classes.

    Attributes:
        indices: Their indices.
        images: Images no larger than they are drawn.
        factors: Factors by which they were scaled.
        problems: `CorruptImageError`s of the images passed over, which only a source
            with `on_corrupt="skip"` has.
    """

    indices: np.ndarray
    images: list
    factors: list
    problems: list


def describe(
    name,
    data=None,
    output="contact_sheet.png",
    examples_per_class=10,
    split=None,
    on_corrupt="error",
    assignments=(),
    depth=0,
):
    """Counts a data set's classes and draws the first images of each.

    Args:
        name, data: See `named_source`.
        output: PNG file to write.
        examples_per_class: Images of each class.
        split: Name of a split, to count each of its parts.
        on_corrupt: `"error"`, or `"skip"` to leave out what cannot be decoded.
        assignments, depth: See `named_source`.

    Returns:
        The counts and what was written, as text.
    """
    output = pathlib.Path(output)
    if output.suffix.lower() != ".png":
        raise ValueError(f"Expected the name of a PNG file. Received: {output}")
    if examples_per_class < 1:
        raise ValueError(
            "Expected at least one example per class. "
            f"Received: examples_per_class={examples_per_class}"
        )
    source = named_source(name, data, on_corrupt, assignments, depth)
    lines = [f"{name}: {len(source)} images, {len(source.class_names)} classes", ""]
    if split is None:
        lines.append(counts_table(source.labels, source.class_names))
    else:
        parts = split_indices(source, split)
        lines += missing_classes(source, parts)
        for part, indices in parts.items():
            counts = counts_table(source.labels[indices], source.class_names)
            lines += [f"{split}, {part}", counts, ""]
    problems = write_sheet(source, output, examples_per_class)
    skipped = [f"{file}: {reason}" for file, reason in source.skipped]
    lines += [f"skipped: {problem}" for problem in (*skipped, *map(str, problems))]
    if source.ignored:
        lines.append(f"left out: {replace(source, skipped=()).left_out}")
    note = numbered(source.class_names[:ROWS])
    lines += ["", f"Contact sheet: {output}", *([note] if note else [])]
    return "\n".join(lines)


def write_sheet(source, output, examples_per_class=10):
    """Draws the first readable images of every class into one PNG file.

    Returns:
        The `CorruptImageError`s of the images passed over.
    """
    chosen, images, factors, problems = first_images(source, examples_per_class)
    boxes = source.annotations.get("box")
    if boxes is not None:
        boxes = boxes[chosen] * np.reshape(factors, (-1, 1))
    picture = contact_sheet(
        images,
        source.labels[chosen],
        source.class_names,
        columns=examples_per_class,
        boxes=boxes,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    with write_then_rename(output) as file:
        picture.save(file, "PNG")
    return problems


def first_images(source, count):
    """`FirstImages` of every class that a contact sheet shows."""
    chosen, images, factors, problems = [], [], [], []
    for label in range(min(len(source.class_names), ROWS)):
        found = 0
        for index in np.flatnonzero(source.labels == label):
            if found == count:
                break
            try:
                image, factor = reduced(source.array(index))
            except CorruptImageError as error:
                if source.on_corrupt != "skip":
                    raise
                problems.append(error)
                continue
            images.append(image)
            factors.append(factor)
            chosen.append(index)
            found += 1
    return FirstImages(np.array(chosen, int), images, factors, problems)


def named_source(name, data=None, on_corrupt="error", assignments=(), depth=0):
    """The `Source` of a data set by its name, or of a folder or archive of images.

    Args:
        name: Name of a data set, or a path.
        data: Path of the data, with a name.
        on_corrupt: `"error"`, or `"skip"` to leave out what cannot be decoded.
        assignments: `key=value` options of the generated data set.
        depth: Nested folders that name a class of a folder.
    """
    if name not in SOURCE_NAMES and _is_place(name):
        if data is not None or assignments:
            raise ValueError(
                "Expected --data and --set with the name of a data set only. "
                f"Received: the path {name}, and one of them"
            )
        name, data = "folder", name
    options = generated_options(name, assignments)
    if depth:
        options["depth"] = depth
    return load_source(name, path=data, on_corrupt=on_corrupt, **options)


def _is_place(name):
    return "://" in name or "{" in name or pathlib.Path(name).exists()


def generated_options(name, assignments):
    """`key=value` texts as arguments of `generated_source`."""
    if assignments and not (name in KNOWN and KNOWN[name].synthetic):
        raise ValueError(
            f"Expected no --set options for {name}, only for generated. "
            f"Received: {' '.join(assignments)}"
        )
    parameters = inspect.signature(generated_source).parameters
    options = {}
    for assignment in assignments:
        expected = f"key=value with a key of {', '.join(parameters)}"
        key, text = split_assignment(assignment, expected)
        if key not in parameters:
            raise ValueError(f"Expected {expected}. Received: {assignment!r}")
        kind = type(parameters[key].default)
        try:
            options[key] = kind(text)
        except ValueError:
            raise ValueError(
                f"Expected {key} to be of type {kind.__name__}. Received: {text!r}"
            ) from None
    return options
