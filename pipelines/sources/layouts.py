"""Layouts of images under a folder or in a tar archive."""

import csv
import io
from dataclasses import dataclass, field, replace

import numpy as np

from keras_attn.pipelines.collections.labels import LABEL_COLUMNS, PARTS
from keras_attn.pipelines.collections.tables import FILE_COLUMNS
from keras_attn.pipelines.images.headers import SUFFIXES

# Photographs that nothing here reads.
UNREADABLE_SUFFIXES = (".jp2", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".psd")
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
        ignored: Names of files that are no images, or in no class.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    official: dict[str, np.ndarray] = field(default_factory=dict)
    problems: tuple[tuple[str, str], ...] = ()
    annotations: dict[str, np.ndarray] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


def consecutive(sizes):
    """Index arrays of parts that follow one another, from a dict of their sizes."""
    ends = np.cumsum(list(sizes.values()))
    return {
        part: np.arange(end - size, end)
        for (part, size), end in zip(sizes.items(), ends, strict=True)
    }


def list_class_folders(tree, depth=0) -> Listing:
    """Read the layout CLASS/image, or train/CLASS/image beside val/ and test/.

    One folder, or several nested ones, around all of this is looked through. Hidden
    files are left out; files that are not images, and images beside the class folders,
    are listed as ignored.

    Args:
        tree: A `FileTree`.
        depth: Number of nested folders that name a class, `animal/cat` with 2; folders
            below belong to it. 0: one, without folders below.

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
    wrapper = _wrapper(images, depth)
    inside = [name for name in images if name.startswith(wrapper)]
    files = [(name, _parts(name, wrapper)) for name in inside]
    files = [(name, parts) for name, parts in files if len(parts) > 1]
    if depth:
        files = [(name, _of_depth(parts, depth)) for name, parts in files]
        files = [(name, parts) for name, parts in files if parts]
    if not files:
        raise ValueError(
            "Expected a folder for each class (CLASS/image or train/CLASS/image). "
            f"Received: {tree.root}, whose images are in no class folder."
        )
    levels = 3 if any(_division(parts) for _, parts in files) else 2
    for name, parts in files:
        if len(parts) != levels or (levels == 3 and _division(parts) is None):
            layout = "CLASS/image" if levels == 2 else "train|val|test/CLASS/image"
            raise ValueError(
                f"Expected the layout {layout} throughout, or depth (--depth), the "
                f"number of folders that name a class. Received: {name} in {tree.root}."
            )
    chosen = {name for name, _ in files}
    ignored = tuple(name for name in tree.sizes if name not in chosen)
    return replace(_labelled(tree, wrapper, files, levels, depth), ignored=ignored)


def _of_depth(parts, depth):
    """`(part, CLASS, image)` or `(CLASS, image)`; `None` for images above the depth."""
    part = parts[:1] if parts[0] in PARTS else ()
    folders = parts[len(part) : -1]
    if len(folders) < depth:
        return None
    return (*part, "/".join(folders[:depth]), parts[-1])


def _parts(name, wrapper):
    return tuple(name.removeprefix(wrapper).split("/"))


def _wrapper(images, depth=0):
    """The folders around the layout, as a prefix of names."""
    wrapper = ""
    while True:
        inside = [_parts(name, wrapper) for name in images if name.startswith(wrapper)]
        inside = [parts for parts in inside if len(parts) > 1]
        tops = {parts[0] for parts in inside}
        if (
            len(tops) != 1
            or tops & set(PARTS)
            or min(map(len, inside)) < 2 + max(depth, 1)
        ):
            return wrapper
        wrapper += f"{tops.pop()}/"


def _division(parts):
    return PARTS.get(parts[0]) if len(parts) > 2 else None


def _labelled(tree, wrapper, files, levels, depth):
    # Training images come first, whatever the folders' names sort like.
    order = list(dict.fromkeys(PARTS.values()))
    if levels == 3:
        files.sort(key=lambda item: order.index(_division(item[1])))
    folders = [_parts(n, wrapper) for n in tree.folders if n.startswith(wrapper)]
    if levels == 3:
        folders = [parts for parts in folders if parts[0] in PARTS]
    expected = {parts[-1] for parts in folders if len(parts) == levels - 1}
    expected = set() if depth else expected
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
        if levels == 3 and part in divisions
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


SEPARATOR = ";"


def labels_file(tree):
    """The table of labels at the top of a tree: `labels.csv`, or its only CSV file."""
    tables = [name for name in tree.sizes if name.lower().endswith(".csv")]
    top = [name for name in tables if "/" not in name]
    named = [name for name in top if name.lower() == "labels.csv"]
    return (named or (top if len(tables) == 1 else [None]) or [None])[0]


def list_labels(tree, table, several=False) -> Listing:
    """Read a table of labels: a column of files, one of labels, one `split` or none.

    Args:
        tree: A `FileTree`.
        table: Name of the CSV file; files are relative to its folder, or to `images/`.
        several: Whether a label may be several, such as `cat;dog`, or empty. The
            annotation `labels`, `(N, classes)`, has all; `labels` itself the first.

    Raises:
        ValueError: A column is missing, or an image that is named there.
    """
    try:
        text = tree.read(table).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"Expected a table in UTF-8. Received: {tree.where(table)} ({error})."
        ) from None
    # Spreadsheets write semicolons where the comma is a decimal one.
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    rows = csv.DictReader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
    columns = {str(name).strip().lower(): name for name in rows.fieldnames or ()}
    file = next((columns[name] for name in FILE_COLUMNS if name in columns), None)
    label = next((columns[name] for name in LABEL_COLUMNS if name in columns), None)
    if file is None or label is None:
        raise ValueError(
            f"Expected a column {' or '.join(FILE_COLUMNS)}, and one {LABEL_COLUMNS}. "
            f"Received: {rows.fieldnames} in {tree.where(table)}."
        )
    found = {}
    for row in rows:
        given, name = (row[file] or "").strip(), (row[label] or "").strip()
        if not given or not (name or several):
            raise ValueError(
                "Expected a file and a label in every row. Received: line "
                f"{rows.line_num} of {tree.where(table)}."
            )
        part = PARTS.get((row.get(columns.get("split")) or "").strip().lower(), "")
        image = _image_of_row(tree, table[: table.rfind("/") + 1], given, table)
        if found.setdefault(image, (part, name)) != (part, name):
            raise ValueError(
                f"Expected one label for each image. Received: {given!r} as "
                f"{found[image][1]!r} and {name!r} in {tree.where(table)}."
            )
    if not found:
        raise ValueError(f"Expected rows of images. Received: {tree.where(table)}.")
    order = ["", *dict.fromkeys(PARTS.values())]
    good = sorted(
        (order.index(part), name, image)
        for image, (part, name) in found.items()
        if tree.sizes[image]
    )
    own = {name: labels_in(name, several) for _, name in found.values()}
    class_names = tuple(sorted({each for names in own.values() for each in names}))
    rows = [[each in own[name] for each in class_names] for _, name, _ in good]
    labels = np.array(rows, bool).reshape(len(good), len(class_names))
    official = {
        part: np.flatnonzero([number == place for number, _, _ in good])
        for place, part in enumerate(order)
        if part and any(number == place for number, _, _ in good)
    }
    whole = "train" in official and len(official) > 1
    whole = whole and sum(map(len, official.values())) == len(good)
    return Listing(
        names=tuple(image for *_, image in good),
        labels=labels.argmax(axis=1).astype(np.int32),
        class_names=class_names,
        annotations={"labels": labels} if several else {},
        official=official if whole else {},
        problems=tuple((name, EMPTY) for name in found if not tree.sizes[name]),
        ignored=tuple(n for n in tree.sizes if n not in found and n != table),
    )


def labels_in(cell, several):
    """The labels in a cell of a table; a class name may have a semicolon."""
    parts = cell.split(SEPARATOR) if several else [cell]
    return [part.strip() for part in parts if part.strip()]
