"""Reading of files in which data sets list their images, classes and boxes.

Every mistake in them is a ValueError that names the file and the place. Nothing in them
is executed: they are text, JSON, and MAT-files of numbers and texts.
"""

import io
import json
import math
import zipfile
from typing import NamedTuple

import numpy as np

from keras_attn.pipelines.files import DAMAGE
from keras_attn.pipelines.images.boxes import pixel_boxes
from keras_attn.pipelines.sources.catalogue import KNOWN
from keras_attn.pipelines.sources.layouts import EMPTY, Listing

NO_BOX = (math.nan,) * 4
# Above the unpacked size of any of these files.
MAX_BYTES = 2 * 1024**3


class ListedImage(NamedTuple):
    """An image in a data set's files.

    Attributes:
        name: File name in the tree.
        label: Its class's number.
        part: "train", "validation" or "test".
        corners: `(y0, x0, y1, x1)` in the numbers of the files, `NO_BOX` without one.
        others: Dict of further annotations.
    """

    name: str
    label: int
    part: str
    corners: tuple = NO_BOX
    others: dict | None = None


def find(tree, name, data_set, packed=()):
    """Path of a file in a `FileTree`, the least deep one of several.

    `name` is without folders; other names, `packed`, are looked for if it is not there.

    Raises:
        ValueError: It is not there; the message has the name of the data set.
    """
    for wanted in (name, *packed):
        found = [
            path for path in tree.sizes if path == wanted or path.endswith(f"/{wanted}")
        ]
        if found:
            return min(found, key=lambda path: (path.count("/"), path))
    known = KNOWN[data_set]
    files = ", ".join((known.archive, *known.unpacked)).strip(", ")
    raise ValueError(
        f"Expected {name}, as the official files of {data_set} have it ({files}, from "
        f"{known.url}). Received: {tree.root}, which lacks it. For images in a folder "
        "for each class use the data set 'folder'."
    )


def is_there(tree, name):
    """Tests whether a file of that name is anywhere in a tree."""
    return any(path == name or path.endswith(f"/{name}") for path in tree.sizes)


def text_lines(tree, name):
    """`(number, line)` of the lines of a text file that are not empty."""
    try:
        text = tree.read(name).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"Expected a text file. Received: {tree.where(name)} ({error})."
        ) from None
    lines = enumerate(map(str.strip, text.splitlines()), 1)
    return [(number, line) for number, line in lines if line]


def keyed_lines(tree, name, layout, parse=str):
    """Dict of the values of a text file, one per line, by the first word of the line.

    `parse` makes a value of what follows the first word; a ValueError of it is a
    damaged line. `layout` is that of a line, for messages.

    Raises:
        ValueError: A damaged line, or a first word for the second time.
    """
    values = {}
    for number, line in text_lines(tree, name):
        key, _, rest = line.partition(" ")
        try:
            value = parse(rest.strip())
            if not rest.strip():
                raise ValueError
        except ValueError:
            raise ValueError(
                f"Expected {layout} in every line. Received: {line!r} in line {number} "
                f"of {tree.where(name)}."
            ) from None
        if key in values:
            raise ValueError(
                f"Expected one line for {key!r}. Received: another one, line {number} "
                f"of {tree.where(name)}."
            )
        values[key] = value
    return values


def check_same_keys(tree, listed, listed_in, found, found_in):
    """Raise a ValueError unless two files are about the same images."""
    check_keys(tree, listed, listed_in, found, found_in)
    check_keys(tree, found, found_in, listed, listed_in)


def check_keys(tree, keys, keys_in, others, others_in):
    """Raise a ValueError for the first image of a file that another one lacks."""
    for key in keys:
        if key not in others:
            raise ValueError(
                f"Expected the same images in all files. Received: {key!r} in "
                f"{tree.where(keys_in)} and not in {tree.where(others_in)}."
            )


def numbers(text, count):
    """The finite numbers of a line, of which there must be `count`."""
    values = tuple(map(float, text.split()))
    if len(values) != count or not all(map(math.isfinite, values)):
        raise ValueError
    return values


def read_json(tree, name, path):
    """The content of a JSON file, or of the one in a zip archive.

    Args:
        tree: A `FileTree`.
        name: Name of the JSON file without folders.
        path: Its path, or the archive's, in the tree.
    """
    data = tree.read(path)
    try:
        if path.endswith(".zip"):
            data = _unzipped(data, name)
        return json.loads(data)
    except DAMAGE as error:
        raise ValueError(
            f"Expected a complete JSON file {name}. Received: {tree.where(path)} "
            f"({error})."
        ) from None


def _unzipped(data, name):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.infolist():
            if member.filename.rsplit("/", 1)[-1] == name:
                if member.file_size > MAX_BYTES:
                    raise ValueError(f"larger than {MAX_BYTES / 1024**3:g} GB")
                return archive.read(member)
    raise ValueError("not in this archive")


def entries(content, key, kinds, where):
    """Tuples of the fields of the entries of a list in a JSON file, checked.

    `kinds` leads from the fields that are needed to their types; `key` is the list's
    name, `where` the file's in messages.
    """
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, list):
        raise ValueError(f"Expected a list {key!r} in {where}. Received: none")
    rows = []
    for number, entry in enumerate(found):
        values = [entry.get(k) for k in kinds] if isinstance(entry, dict) else ()
        if not values or not all(map(isinstance, values, kinds.values())):
            raise ValueError(
                f"Expected {', '.join(kinds)} in every entry of {key!r} in {where}. "
                f"Received: {str(entry)[:100]} as entry {number}"
            )
        rows.append(tuple(values))
    return rows


def read_mat(tree, name, data_set):
    """The variables of a MAT-file of version 5, by SciPy.

    SciPy's reader makes arrays of numbers and texts; functions and objects in a file
    stay data.

    Raises:
        ImportError: SciPy is not installed.
        ValueError: It is no such file.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError(
            f"Expected SciPy, to read the annotations of {data_set}, {name}. Install "
            "it: pip install 'keras-attn[datasets]'"
        ) from error
    try:
        return loadmat(io.BytesIO(tree.read(name)))
    except Exception as error:  # Its parser raises many types on damaged files.
        raise ValueError(
            f"Expected a MAT-file of version 5. Received: {tree.where(name)} "
            f"({type(error).__name__}: {error})."
        ) from None


def mat_records(content, variable, kinds, where):
    """The rows of a struct array among the variables of a MAT-file, checked; tuples.

    `kinds` leads from the fields that are needed to `str` or `float`; `where` is the
    name of the file in messages.
    """
    table = content.get(variable)
    names = getattr(getattr(table, "dtype", None), "names", None) or ()
    missing = [field for field in kinds if field not in names]
    if missing:
        raise ValueError(
            f"Expected a struct array {variable!r} with {', '.join(kinds)} in {where}. "
            f"Received: no {missing[0]!r}"
        )
    rows = []
    for number, record in enumerate(table.ravel(), 1):
        try:
            rows.append(tuple(mat_value(record[k], kind) for k, kind in kinds.items()))
        except ValueError:
            values = {field: np.asarray(record[field]).tolist() for field in kinds}
            raise ValueError(
                f"Expected one {' or '.join(k.__name__ for k in (float, str))} in each "
                f"of {', '.join(kinds)}. Received: {str(values)[:200]} in row {number} "
                f"of {variable!r} in {where}."
            ) from None
    return rows


def mat_value(value, kind):
    """The single number (`float`) or text (`str`) in a cell of a MAT-file."""
    value = np.asarray(value).ravel()
    if value.size != 1 or value.dtype.kind not in ("U" if kind is str else "iufb"):
        raise ValueError
    value = kind(value[0])
    if value == "" or value != value:
        raise ValueError
    return value


def listing_of(tree, rows, class_names, data_set, problems=()):
    """The `Listing` of a data set, by its name in the catalogue.

    `ListedImage`s are in the order of the examples and all have the same annotations,
    class names in that of the labels; problems are pairs (name, reason) of files to be
    reported.

    Raises:
        ValueError: No rows, or an image that is not there.
    """
    if not rows:
        raise ValueError(f"Expected images of {data_set}. Received: {tree.root}: none")
    absent = [row.name for row in rows if row.name not in tree.sizes]
    if absent:
        others = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise ValueError(
            f"Expected all {len(rows)} listed images of {data_set}. Received: "
            f"{tree.root}, which lacks {absent[0]}{others}."
        )
    corrupt = {name for name, _ in problems}
    empty = [row.name for row in rows if not tree.sizes[row.name]]
    problems = (*problems, *((name, EMPTY) for name in empty if name not in corrupt))
    corrupt.update(empty)
    rows = [row for row in rows if row.name not in corrupt]
    parts = np.array([row.part for row in rows])
    annotations = {
        key: np.array([row.others[key] for row in rows])
        for key in (rows and rows[0].others) or ()
    }
    corners = np.array([row.corners for row in rows], "float64").reshape(-1, 4)
    drawn = ~np.isnan(corners).any(axis=-1)
    if drawn.any():
        box = np.full(corners.shape, -1, np.int32)
        box[drawn] = pixel_boxes(corners[drawn], KNOWN[data_set].first_pixel)
        annotations["box"] = box
    return Listing(
        names=tuple(row.name for row in rows),
        labels=np.array([row.label for row in rows], np.int32),
        class_names=tuple(class_names),
        official={
            part: np.flatnonzero(parts == part)
            for part in ("train", "validation", "test")
            if part in parts
        },
        problems=problems,
        annotations=annotations,
    )
