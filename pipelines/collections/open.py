"""Opening of collections: what a path or URL stands for."""

import csv
import itertools
import os
import re
import sys
from array import array
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from keras_attn._checks import one_of
from keras_attn.pipelines.collections.collection import (
    Collection,
    Rows,
    SingleFiles,
    TarFiles,
)
from keras_attn.pipelines.collections.filesystems import extra, filesystem_of
from keras_attn.pipelines.collections.labels import Labels, part_of
from keras_attn.pipelines.collections.packed import Composed, Packed
from keras_attn.pipelines.collections.parquet import ParquetFiles
from keras_attn.pipelines.collections.tables import ListedFiles, lines_of, rows_of
from keras_attn.pipelines.collections.tar import CLASSES, class_names_in, index_shard
from keras_attn.pipelines.images.headers import SUFFIXES

KINDS = ("folder", "list", "csv", "tar", "parquet")
BY_SUFFIX = {
    ".tar": "tar",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".txt": "list",
    ".lst": "list",
}
BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")
# Remote archives that are indexed at the same time.
THREADS = 16
# Bytes read at a time for the headers of an archive.
AHEAD = 2**14


def open_collection(source, kind=None, column=None, label_column=None):
    """Opens the images of a folder, a list, tar shards or Parquet files.

    Args:
        source: A path or a URL of fsspec, of

            - a folder of images at any depth, sorted by the parts of their names;
              hidden files and links to folders are left out,
            - a text file with a path or URL per line, relative to its folder,
            - a CSV file with a column of those and one of labels or none,
            - tar shards in the layout of WebDataset: one archive, a folder of them, or
              a pattern such as `data-{000..010}.tar`,
            - Parquet files with a column of image bytes, or of the struct of bytes and
              path that Hugging Face data sets write; one, a folder, or a pattern.
        kind: One of `KINDS`, where the source does not show it.
        column, label_column: Columns of Parquet files; found by default.

    Returns:
        A `Collection`.

    Raises:
        FileNotFoundError: Nothing is there.
        ValueError: There are no images, or a file is damaged.
        OSError: A place cannot be reached.
        ImportError: A package is missing; the message names it.

    Example:

    >>> images = open_collection("photos")
    >>> len(images), images.names(0, 2), images.describe()["kind"]
    """
    source = os.fspath(source)
    if kind is not None:
        one_of("kind", kind, KINDS)
    filesystem, paths = located(source)
    path = paths[0]
    found = kind or BY_SUFFIX.get(os.path.splitext(path)[1].lower())
    if len(paths) > 1 or not filesystem.is_folder(path):
        _check_files(filesystem, paths, source, found)
        return _of_files(filesystem, paths, source, found, column, label_column)
    names, sizes, shards, left_out = _listed(filesystem, path)
    inside = "folder"
    if shards and not len(names):
        inside = max(shards, key=lambda kind: len(shards[kind]))
    found = kind if kind in ("folder", "tar", "parquet") else inside
    if found == "folder":
        for name in itertools.chain(*shards.values()):
            left_out.append(os.fsencode(name))
        files = SingleFiles(filesystem, path)
        return Collection(found, source, names, sizes, files, left_out=left_out)
    paths = [f"{path.rstrip('/')}/{name}" for name in shards.get(found, [])]
    _check_files(filesystem, paths[:1], source, found)
    return _of_files(filesystem, paths, source, found, column, label_column)


def located(source):
    """The filesystem of a path, URL or pattern, and the paths there that it names."""
    source = os.fspath(source)
    patterns = [source] if os.path.exists(source) else expand(source)
    filesystem, path = filesystem_of(patterns[0])
    return filesystem, [path, *(filesystem_of(each)[1] for each in patterns[1:])]


def expand(source):
    """The sources that a pattern of braces stands for, in order.

    >>> expand("data-{08..10}.tar"), expand("{a,b}.tar")
    (['data-08.tar', 'data-09.tar', 'data-10.tar'], ['a.tar', 'b.tar'])
    """
    pieces, end = [], 0
    for match in BRACES.finditer(source):
        first, last, words = match.groups()
        pieces.append([source[end : match.start()]])
        if words is None:
            numbers = range(int(first), int(last) + 1)
            pieces.append([f"{number:0{len(first)}}" for number in numbers])
        else:
            pieces.append(words.split(","))
        end = match.end()
    pieces.append([source[end:]])
    expanded = ["".join(each) for each in itertools.product(*pieces)]
    if not expanded:
        raise ValueError(f"Expected a range that counts up. Received: {source}")
    return expanded


def _check_files(filesystem, paths, source, kind):
    for path in paths:
        if not filesystem.exists(path):
            raise FileNotFoundError(
                "Expected a folder of images, a list, tar shards or Parquet files. "
                f"Received: {filesystem.url(path)}, which does not exist"
            )
    if kind in (None, "folder") or not paths:
        raise ValueError(
            f"Expected a folder of images, or files {', '.join(BY_SUFFIX)}. "
            f"Received: {source}"
        )


def _listed(filesystem, folder):
    """Names and sizes of images, names of shards by kind, and of other files."""
    sizes, shards, left_out = array("q"), {}, Packed()

    def images():
        for name, size in filesystem.walk(folder):
            text = os.fsdecode(name[-9:]).lower()
            if text.endswith(SUFFIXES):
                sizes.append(size)
                yield name
                continue
            kind = BY_SUFFIX.get(os.path.splitext(text)[1])
            if kind in ("tar", "parquet"):
                shards.setdefault(kind, []).append(os.fsdecode(name))
            else:
                left_out.append(name)

    return Packed(images()), sizes, shards, left_out


def _of_files(filesystem, paths, source, kind, column, label_column):
    if kind == "tar":
        return _of_tar(filesystem, paths, source)
    if kind == "parquet":
        pyarrow = extra("pyarrow", "Parquet")
        try:
            tables = ParquetFiles(filesystem, paths, column, label_column)
            labels = tables.labels()
        except (pyarrow.ArrowException, UnicodeDecodeError) as error:
            raise ValueError(
                f"Expected complete Parquet files. Received: {source} "
                f"({str(error).splitlines()[0]})"
            ) from error
        names = Composed(_short(paths), tables.counts, separator="#")
        # Sizes of rows are not known before they are read, those of files are.
        facts = (repr([size for size, _ in tables.stamps]),)
        sizes = np.full(len(names), -1)
        labels = labels._replace(parts=_parts(names))
        return Collection(kind, source, names, sizes, Rows(tables), labels, facts=facts)
    if len(paths) > 1:
        raise ValueError(f"Expected one {kind} file. Received: {source}")
    folder = os.path.dirname(paths[0])
    files, sizes = ListedFiles(filesystem, folder), array("q")
    texts, parts = [], []
    read = rows_of if kind == "csv" else lines_of

    def names():
        with filesystem.open(paths[0]) as content:
            for name, label, part in read(content, source):
                parts.append(part)
                sizes.append(files.size(name))
                texts.append(label and sys.intern(label))
                yield os.fsencode(name)

    try:
        listed = Packed(names())
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"Expected a {kind} file in UTF-8. Received: {source} ({error})"
        ) from error
    labels = Labels.of(texts, parts=np.array(parts) if any(parts) else None)
    return Collection(kind, source, listed, sizes, files, labels)


def _parts(names, given=()):
    """Parts of the images of shards: as given, else by the names of the shards."""
    counts = np.diff(names.ends, prepend=0)
    found = given if any(given) else [part_of(group) for group in names.groups]
    return np.repeat(found, counts) if any(found) else None


def _of_tar(filesystem, paths, source):
    stamps = [filesystem.stamp(path) for path in paths]

    def index(number):
        path, (length, _) = paths[number], stamps[number]
        with filesystem.open(path) as file:
            return index_shard(reader(file), length, filesystem.url(path))

    workers = min(THREADS, len(paths)) if filesystem.remote else 1
    counts, offsets, sizes, texts, parts = [], [], [], [], []
    left_out = Packed()
    class_names = _classes_beside(filesystem, paths)

    with ThreadPoolExecutor(workers) as pool:

        def members():
            nonlocal class_names
            for shard in pool.map(index, range(len(paths))):
                counts.append(len(shard.names))
                offsets.append(np.array(shard.offsets, np.int64))
                sizes.append(np.array(shard.sizes, np.int64))
                texts.extend(shard.labels)
                for name in shard.left_out:
                    left_out.append(name)
                parts.append(shard.part)
                class_names = class_names or shard.class_names
                yield from shard.names

        packed = Packed(members())
    names = Composed(_short(paths), counts, packed)
    files = TarFiles(filesystem, tuple(paths), stamps, np.concatenate(offsets))
    labels = Labels.of(texts, class_names, _parts(names, parts))
    sizes = np.concatenate(sizes)
    return Collection("tar", source, names, sizes, files, labels, left_out)


def _classes_beside(filesystem, paths):
    path = os.path.join(os.path.dirname(paths[0]), os.fsdecode(CLASSES))
    return class_names_in(filesystem.read(path)) if filesystem.exists(path) else ()


def reader(file):
    """Function `(start, count)` of bytes that reads a little ahead."""
    block, first = b"", 0

    def read(start, count):
        nonlocal block, first
        place = start - first
        if place < 0 or place + count > len(block):
            file.seek(start)
            block, first, place = file.read(max(count, AHEAD)), start, 0
        return block[place : place + count]

    return read


def _short(paths):
    """Paths without the folders that all of them are in."""
    common = os.path.dirname(os.path.commonprefix([*paths, paths[0]]))
    return [path[len(common) :].lstrip("/") for path in paths]
