"""Labelled images in shards, Parquet, lists and CSV files as a `Source`."""

import os
from collections.abc import Sequence

import numpy as np

from keras_attn.pipelines.collections import open_collection
from keras_attn.pipelines.collections.labels import PARTS, Labels
from keras_attn.pipelines.collections.open import BY_SUFFIX, located
from keras_attn.pipelines.collections.tar import is_compressed
from keras_attn.pipelines.sources.layouts import EMPTY, labels_in

SHARDS = tuple(
    suffix for suffix, kind in BY_SUFFIX.items() if kind in ("tar", "parquet")
)


def open_shards(path):
    """The `Collection` of tar shards, Parquet, a list or a CSV file.

    Returns:
        `None` for anything else: folders of images, zips, compressed archives.
    """
    filesystem, paths = located(path)
    if len(paths) == 1 and filesystem.is_folder(paths[0]):
        if not _holds_shards(filesystem, paths[0]):
            return None
        found = open_collection(path)
        # Images beside an archive are a folder of images.
        return None if found.kind == "folder" else found
    kind = BY_SUFFIX.get(os.path.splitext(paths[0])[1].lower())
    if kind is None or (len(paths) == 1 and not filesystem.exists(paths[0])):
        return None
    if kind == "tar" and len(paths) == 1:
        if is_compressed(filesystem.read(paths[0], 0, 6)):
            return None
    return open_collection(path)


def _holds_shards(filesystem, folder):
    """Looks into a folder and its parts, without listing their images."""
    files, folders = filesystem.entries(folder)
    if any(name.lower().endswith(SHARDS) for name in files):
        return True
    below = [name for name in folders if name in PARTS or name == "data"]
    return any(
        name.lower().endswith(SHARDS)
        for inside in below
        for name in filesystem.entries(f"{folder.rstrip('/')}/{inside}")[0]
    )


class Entries(Sequence):
    """`Source.files` of some images of a collection, made when they are asked for."""

    def __init__(self, images, chosen):
        self.images, self.chosen = images, chosen

    def __len__(self):
        return len(self.chosen)

    def __getitem__(self, index):
        return self.images.entry(self.chosen[index])


def fields_of(images, on_corrupt, several=False):
    """Fields of a `Source` of a collection with labels.

    Args:
        images: `Collection`.
        on_corrupt: "error" or "skip", for empty files.
        several: See `keras_attn.pipelines.sources.layouts.list_labels`.

    Returns:
        Dict of fields, and pairs (file, reason) of the files left out.

    Raises:
        ValueError: Images have no label.
    """
    labels = images.labels
    if labels is None and images.kind in ("list", "csv"):
        labels = Labels.of(map(_folder_of, images.names()))
    if labels is None or not several and (labels.numbers < 0).any():
        raise _no_labels(images, labels)
    empty = np.array([images.size(i) == 0 for i in range(len(images))])
    chosen = np.flatnonzero(~empty)
    annotations = {}
    if several:
        names, rows = _several(labels)
        annotations = {"labels": rows[chosen]}
        numbers = rows.argmax(axis=1).astype(np.int32)
    else:
        names, found = labels.resolved()
        numbers = np.array(found, np.int32)[labels.numbers]
    place = np.cumsum(~empty) - 1
    fields = {
        "class_names": names,
        "labels": numbers[chosen],
        "files": Entries(images, chosen),
        "read": lambda index: images.read_one(chosen[index]),
        "stamp": lambda index: images.stamp(chosen[index]),
        "remote": images.files.remote,
        "annotations": annotations,
        "official": {
            part: place[indices[~empty[indices]]]
            for part, indices in labels.official().items()
        },
    }
    return fields, [(images.name(i), EMPTY) for i in np.flatnonzero(empty)]


def _folder_of(name):
    """The folder around a listed file, the name of its class."""
    parts = name.split("/")
    return parts[-2] if len(parts) > 1 else None


def _several(labels):
    """Names of the classes, and which of them each image has."""
    given, numbers = labels.resolved() if labels.names else ((), ())
    texts = [given[number] for number in numbers] or labels.texts
    own = [labels_in(text, True) for text in (*texts, "")]
    names = tuple(sorted({name for each in own for name in each}))
    rows = np.array([[name in each for name in names] for each in own], bool)
    return names, rows[labels.numbers]


def _no_labels(images, labels):
    missing = (
        range(len(images)) if labels is None else np.flatnonzero(labels.numbers < 0)
    )
    where = {
        "parquet": "a column label of integers or names",
        "csv": "a column label, or files in a folder for each class",
        "list": "files in a folder for each class",
    }.get(images.kind, "NAME.cls or NAME.json beside each NAME.jpg")
    return ValueError(
        f"Expected labels: {where}. Received: {images.source}, where {len(missing)} of "
        f"{len(images)} images have none, such as {images.name(missing[0])}"
    )
