"""Lists of images in text files and CSV files."""

import csv
import functools
import io
import os

from keras_attn.pipelines.collections.filesystems import filesystem_of
from keras_attn.pipelines.collections.labels import LABEL_COLUMNS, PARTS
from keras_attn.pipelines.images.headers import SUFFIXES

FILE_COLUMNS = ("filename", "file", "image", "path", "image_path", "filepath", "url")


class ListedFiles:
    """Images that are named one by one, by paths from a folder or by URLs."""

    def __init__(self, filesystem, folder):
        self.filesystem, self.folder = filesystem, folder
        self.remote = filesystem.remote

    def _located(self, name):
        if "://" in name:
            self.remote = True
            return _filesystem(name.partition("://")[0], name)
        if os.path.isabs(name) and not self.filesystem.remote:
            return self.filesystem, name
        return self.filesystem, f"{self.folder}/{name}" if self.folder else name

    def size(self, name):
        filesystem, path = self._located(name)
        return filesystem.size(path)

    def read(self, names, index, size):
        filesystem, path = self._located(names[index])
        return filesystem.read(path)

    def stamp(self, names, index, size):
        filesystem, path = self._located(names[index])
        # One request per image takes too long: elsewhere the name alone counts.
        return (size, "") if filesystem.remote else filesystem.stamp(path)

    def entry(self, names, index):
        filesystem, path = self._located(names[index])
        return filesystem.url(path)


@functools.lru_cache(maxsize=32)
def _known(protocol):
    return filesystem_of(f"{protocol}://")[0]


def _filesystem(protocol, url):
    filesystem = _known(protocol)
    return filesystem, filesystem.filesystem._strip_protocol(url)


def lines_of(content, where):
    """Yields the names in a list of files; empty lines and `#` comments count not."""
    for line in io.TextIOWrapper(content, encoding="utf-8-sig"):
        line = line.strip()
        if line and not line.startswith("#"):
            yield line, None, ""


def rows_of(content, where):
    """Yields the names, labels, or `None`, and parts, or "", in a CSV file.

    The columns are named in the first line; without one, the first has the files and
    the second, if any, the labels.

    Raises:
        ValueError: No column of files, or a row without one.
    """
    text = io.TextIOWrapper(content, encoding="utf-8-sig", newline="")
    rows = csv.reader(text, skipinitialspace=True)
    first = next(rows, [])
    columns = {name.strip().lower(): place for place, name in enumerate(first)}
    file = next((columns[name] for name in FILE_COLUMNS if name in columns), None)
    label = next((columns[name] for name in LABEL_COLUMNS if name in columns), None)
    if file is None and first and first[0].lower().endswith(SUFFIXES):
        file, label = 0, 1 if len(first) > 1 else None
        yield first[0].strip(), _cell(first, label), ""
    if file is None:
        raise ValueError(
            f"Expected a column {' or '.join(FILE_COLUMNS)}. "
            f"Received: {where} with {', '.join(first) or 'nothing'}"
        )
    for row in rows:
        name = _cell(row, file)
        if row and not name:
            raise ValueError(
                "Expected a file in every row. "
                f"Received: line {rows.line_num} of {where}"
            )
        if row:
            part = (_cell(row, columns.get("split")) or "").lower()
            yield name, _cell(row, label), PARTS.get(part, "")


def _cell(row, place):
    return (
        (row[place].strip() or None) if place is not None and place < len(row) else None
    )
