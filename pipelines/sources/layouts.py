"""Layouts of images under a folder or in a tar archive."""

import csv
import io
from dataclasses import dataclass, field

import numpy as np

from keras_attn.pipelines.images.headers import SUFFIXES

UNREADABLE_SUFFIXES = (".webp", ".tif", ".tiff", ".heic", ".avif", ".jp2")
PARTS = {
    "train": "train",
    "val": "validation",
    "validation": "validation",
    "test": "test",
}
EMPTY = "the file is empty, or a broken link"
CSV_FILES = ("train.csv", "val.csv", "test.csv")


@dataclass(frozen=True, eq=False)
class Listing:
    """Image files with their classes.

    Attributes:
        names: File names in the tree, sorted within a part and a class.
        labels: (N,) int32.
        class_names: Sorted.
        official: Index arrays of the parts; empty without such a division.
        problems: Pairs (name, reason) of files that cannot be images.
        annotations: Arrays with one row for each image, as in `Source`.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    official: dict[str, np.ndarray] = field(default_factory=dict)
    problems: tuple[tuple[str, str], ...] = ()
    annotations: dict[str, np.ndarray] = field(default_factory=dict)


def consecutive(sizes):
    """Index arrays of parts that follow one another, from a dict of their sizes."""
    ends = np.cumsum(list(sizes.values()))
    return {
        part: np.arange(end - size, end)
        for (part, size), end in zip(sizes.items(), ends, strict=True)
    }


def list_class_folders(tree) -> Listing:
    """Read the layout CLASS/image, or train/CLASS/image beside val/ and test/.

    One folder, or several nested ones, around all of this is looked through. Hidden
    files, files that are not images, and images beside the class folders are ignored.

    Args:
        tree: A `FileTree`.

    Raises:
        ValueError: No images, no class folders, a class folder without images, images
            deeper than the layout has them, or a class of another part that `train`
            lacks.
    """
    suffixes = SUFFIXES + UNREADABLE_SUFFIXES
    images = [name for name in tree.sizes if name.lower().endswith(suffixes)]
    if not images:
        raise ValueError(
            f"Expected images ({', '.join(SUFFIXES)}) in a folder for each class. "
            f"Received: {tree.root}, which has none."
        )
    wrapper = _wrapper(images)
    inside = [name for name in images if name.startswith(wrapper)]
    files = [(name, _parts(name, wrapper)) for name in inside]
    files = [(name, parts) for name, parts in files if len(parts) > 1]
    if not files:
        raise ValueError(
            "Expected a folder for each class (CLASS/image or train/CLASS/image). "
            f"Received: {tree.root}, whose images are in no class folder."
        )
    depth = 3 if any(_division(parts) for _, parts in files) else 2
    for name, parts in files:
        if len(parts) != depth or (depth == 3 and _division(parts) is None):
            layout = "CLASS/image" if depth == 2 else "train|val|test/CLASS/image"
            raise ValueError(
                f"Expected the layout {layout} throughout. "
                f"Received: {name} in {tree.root}."
            )
    return _labelled(tree, wrapper, files, depth)


def _parts(name, wrapper):
    return tuple(name.removeprefix(wrapper).split("/"))


def _wrapper(images):
    """The folders around the layout, as a prefix of names."""
    wrapper = ""
    while True:
        inside = [_parts(name, wrapper) for name in images if name.startswith(wrapper)]
        inside = [parts for parts in inside if len(parts) > 1]
        tops = {parts[0] for parts in inside}
        if len(tops) != 1 or tops & set(PARTS) or min(map(len, inside)) < 3:
            return wrapper
        wrapper += f"{tops.pop()}/"


def _division(parts):
    return PARTS.get(parts[0]) if len(parts) > 2 else None


def _labelled(tree, wrapper, files, depth):
    # Training images come first, whatever the folders' names sort like.
    order = list(dict.fromkeys(PARTS.values()))
    if depth == 3:
        files.sort(key=lambda item: order.index(_division(item[1])))
    folders = [_parts(n, wrapper) for n in tree.folders if n.startswith(wrapper)]
    if depth == 3:
        folders = [parts for parts in folders if parts[0] in PARTS]
    expected = {parts[-1] for parts in folders if len(parts) == depth - 1}
    names, labels, problems, divisions = [], [], [], []
    class_names = tuple(sorted({parts[-2] for _, parts in files}))
    for missing in sorted(expected - set(class_names)):
        raise ValueError(
            f"Expected images in every class folder. Received: {missing!r} in "
            f"{tree.root}, which has none. Remove the folder or fill it."
        )
    number = {name: i for i, name in enumerate(class_names)}
    for name, parts in files:
        if name.lower().endswith(UNREADABLE_SUFFIXES):
            problems.append((name, f"Expected one of {', '.join(SUFFIXES)}"))
        elif tree.sizes[name] == 0:
            problems.append((name, EMPTY))
        else:
            names.append(name)
            labels.append(number[parts[-2]])
            divisions.append(_division(parts))
    labels = np.asarray(labels, np.int32)
    official = {
        part: np.flatnonzero([division == part for division in divisions])
        for part in order
        if depth == 3 and part in divisions
    }
    # A folder `train` alone is no division.
    official = official if len(official) > 1 and "train" in official else {}
    return Listing(tuple(names), labels, class_names, official, tuple(problems))


def check_parts_share_classes(listing, root):
    """Raise a ValueError when `train` lacks a class that another part has."""
    if not listing.official:
        return
    trained = set(listing.labels[listing.official["train"]])
    for part, indices in listing.official.items():
        for label in sorted(set(listing.labels[indices]) - trained):
            raise ValueError(
                f"Expected every class to be in train/. Received: {root}, where "
                f"{listing.class_names[label]!r} is in {part} alone."
            )


def has_csv_splits(tree) -> bool:
    """Tests whether the usual csv files of Mini-ImageNet are there."""
    return any(name.rsplit("/", 1)[-1] in CSV_FILES for name in tree.sizes)


def list_csv_splits(tree) -> Listing:
    """Read the usual csv splits of Mini-ImageNet, pooled.

    train.csv, val.csv and test.csv have the columns `filename` and `label`; their
    64, 16 and 20 classes are disjoint, made for few-shot learning, so classification
    pools them. The images are in `images/`, or beside the csv files.

    Args:
        tree: A `FileTree`.

    Raises:
        ValueError: A csv file or column is missing, or an image that is named there.
    """
    found = {name.rsplit("/", 1)[-1]: name for name in tree.sizes}
    rows, seen = [], {}
    for csv_file in CSV_FILES:
        if csv_file not in found:
            raise ValueError(
                f"Expected {', '.join(CSV_FILES)}. Received: {tree.root}, which lacks "
                f"{csv_file}."
            )
        name = found[csv_file]
        folder = name[: -len(csv_file)]
        table = csv.DictReader(io.StringIO(tree.read(name).decode("utf-8-sig")))
        if not {"filename", "label"} <= set(table.fieldnames or ()):
            raise ValueError(
                "Expected the columns filename and label. Received: "
                f"{table.fieldnames} in {tree.where(name)}."
            )
        for row in table:
            if not row["filename"] or not row["label"]:
                raise ValueError(
                    "Expected a filename and a label in every row. Received: line "
                    f"{table.line_num} of {tree.where(name)}."
                )
            image = _image_of_row(tree, folder, row["filename"], name)
            if image in seen:
                raise ValueError(
                    f"Expected every image once. Received: {image} in {seen[image]} "
                    f"and in {csv_file} of {tree.root}."
                )
            seen[image] = csv_file
            rows.append((row["label"], image))
    rows.sort()
    class_names = tuple(sorted({label for label, _ in rows}))
    number = {name: i for i, name in enumerate(class_names)}
    good = [(label, image) for label, image in rows if tree.sizes[image]]
    return Listing(
        names=tuple(image for _, image in good),
        labels=np.asarray([number[label] for label, _ in good], np.int32),
        class_names=class_names,
        problems=tuple((image, EMPTY) for _, image in rows if not tree.sizes[image]),
    )


def _image_of_row(tree, folder, filename, csv_name):
    for candidate in (f"{folder}images/{filename}", f"{folder}{filename}"):
        if candidate in tree.sizes:
            return candidate
    raise ValueError(
        f"Expected the images of {csv_name} in {folder}images/. "
        f"Received: {tree.root}, which lacks {filename}."
    )
