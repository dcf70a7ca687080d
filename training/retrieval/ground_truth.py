"""Ground truths in the format of revisited Oxford and Paris.

Radenovic et al., "Revisiting Oxford and Paris: Large-Scale Image Retrieval
Benchmarking". A dictionary, as JSON or as the published pickle files:

- `imlist`: names of the images of the database, without or with their suffix,
- `qimlist`: names of the images that the queries are cut out of,
- `gnd`: for each query a dictionary of `bbx`, the box `[x0, y0, x1, y1]` in pixels, or
  `null` for the whole image; and `easy`, `hard` and `junk`, lists of positions in
  `imlist`.

Nothing of a pickle file is run, see `keras_attn.convert.pickled_data`.
"""

import dataclasses
import json
import pathlib

import numpy as np

from keras_attn.convert.pickled_data import read_pickled_data

KINDS = ("easy", "hard", "junk")
FORMAT = "Expected a ground truth in the format of revisited Oxford and Paris"


@dataclasses.dataclass(frozen=True)
class GroundTruth:
    """Convention: boxes are (y0, x0, y1, x1), half-open pixels of the query's file.

    Args:
        path: Its file.
        images: Names of the images of the database.
        queries: Names of the images that the queries are cut out of.
        boxes: For each query its box, or `None` for the whole image.
        judgements: For each query a dict of `easy`, `hard` and `junk`, integer arrays
            of positions in `images`.
    """

    path: pathlib.Path
    images: tuple
    queries: tuple
    boxes: tuple
    judgements: tuple


def read_ground_truth(path):
    """Reads and checks a `GroundTruth`, JSON or pickle by its content, not its name.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is neither, or not in the format; the message names the place.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            "Expected a ground truth, a JSON or pickle file. "
            f"Received: {path}, which does not exist or is a folder"
        )
    content = _read(path)
    try:
        return _checked(path, content)
    except _MalformedError as error:
        raise ValueError(f"{FORMAT}. Received: {path}, {error}") from None


class _MalformedError(Exception):
    """The place at which a ground truth is malformed."""


def _read(path):
    with path.open("rb") as file:
        start = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if start not in (b"{", b"["):
        return read_pickled_data(path)
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"Expected a ground truth, a JSON or pickle file. Received: {path}, which "
            f"is damaged JSON ({error})"
        ) from error


def _checked(path, content):
    if not isinstance(content, dict):
        raise _MalformedError("which holds no dictionary")
    missing = [name for name in ("imlist", "qimlist", "gnd") if name not in content]
    if missing:
        raise _MalformedError(f"without {' and '.join(missing)}")
    images = _names(content["imlist"], "imlist")
    queries = _names(content["qimlist"], "qimlist")
    entries = content["gnd"]
    if not isinstance(entries, (list, tuple)) or len(entries) != len(queries):
        raise _MalformedError(
            f"where gnd is not a list of {len(queries)} entries, one per query"
        )
    boxes, judgements = [], []
    for number, entry in enumerate(entries):
        where = f"gnd[{number}]"
        if not isinstance(entry, dict) or any(kind not in entry for kind in KINDS):
            raise _MalformedError(f"where {where} has not all of {', '.join(KINDS)}")
        boxes.append(_box(entry.get("bbx"), f"{where}['bbx']"))
        judgements.append(_judgement(entry, len(images), where))
    return GroundTruth(path, images, queries, tuple(boxes), tuple(judgements))


def _names(values, where):
    if (
        not isinstance(values, (list, tuple))
        or not values
        or not all(isinstance(value, str) and value for value in values)
    ):
        raise _MalformedError(f"where {where} is not a list of names")
    return tuple(values)


def _box(values, where):
    if values is None:
        return None
    try:
        x0, y0, x1, y1 = np.rint(np.asarray(values, "float64").reshape(4)).tolist()
        box = tuple(int(value) for value in (y0, x0, y1, x1))
    except (ValueError, TypeError, OverflowError):
        raise _MalformedError(
            f"where {where} is not [x0, y0, x1, y1] but {values!r}"
        ) from None
    if box[0] >= box[2] or box[1] >= box[3]:
        raise _MalformedError(f"where {where} is an empty box, {values!r}")
    return box


def _judgement(entry, count, where):
    judgement = {kind: _numbers(entry[kind], f"{where}['{kind}']") for kind in KINDS}
    numbers = np.concatenate(list(judgement.values()))
    outside = numbers[(numbers < 0) | (numbers >= count)]
    if len(outside):
        raise _MalformedError(
            f"where {where} names image {outside[0]} of {count} in imlist"
        )
    values, times = np.unique(numbers, return_counts=True)
    if np.any(times > 1):
        raise _MalformedError(
            f"where {where} names image {values[times > 1][0]} more than once"
        )
    return judgement


def _numbers(values, where):
    try:
        numbers = np.asarray(values)
    except ValueError:
        numbers = np.asarray(None)
    # An empty list is one of floats to NumPy.
    if numbers.ndim != 1 or (len(numbers) and numbers.dtype.kind not in "iu"):
        raise _MalformedError(f"where {where} is not a list of integers")
    return numbers.astype("int64")
