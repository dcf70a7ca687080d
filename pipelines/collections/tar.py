"""Tar archives of images, read at any place: an index by one pass over the headers.

Nothing is ever written to disk. In the layout of WebDataset files of one name belong
together: `cat/01.jpg` and its label `cat/01.cls` or `.json`, or `.txt` where no folder
names a class. Names of classes are in `classes.txt`, or in the description that packing
writes.
"""

import json
import os
import sys
from array import array
from typing import NamedTuple

from keras_attn.pipelines.collections.labels import LABEL_COLUMNS
from keras_attn.pipelines.images.headers import SUFFIXES

BLOCK = 512
IMAGES = tuple(suffix.encode() for suffix in SUFFIXES)
# The magic word of a tar archive, at its place in a header; the version may differ.
MAGIC = b"ustar"
REGULAR, FOLLOWED_BY_DATA = b"0\0007", b"0\0007xgLKS"
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"(\xb5/\xfd")
# Beside an image, the first of these has its label; larger ones have none.
TEXT = b".txt"
LABEL_SUFFIXES = (b".cls", b".json", TEXT)
LABEL_BYTES, LABEL_LENGTH = 2**16, 200
CLASSES = b"classes.txt"
# Readers of WebDataset pass over such a name.
DESCRIPTION = b"__dataset__/description.json"


class Shard(NamedTuple):
    """The images of one archive; offsets are those of their bytes."""

    names: list[bytes]
    offsets: array
    sizes: array
    labels: list[str | None]
    class_names: tuple[str, ...]
    part: str
    left_out: list[bytes]


def members(read, length):
    """Yields `(name, offset, size)` of the regular files of a tar archive, in order.

    Folders have the offset -1; links and devices are left out.

    Args:
        read: Function `(start, count)` that gives bytes.
        length: Size of the archive.

    Raises:
        ValueError: It is damaged or truncated.
    """
    position, long = 0, {}
    while True:
        header = read(position, BLOCK)
        if not position and is_compressed(header):
            raise ValueError("it is compressed, and cannot be read at any place")
        if not position and len(header) < BLOCK:
            raise ValueError("no tar archive" if header else "it is empty")
        if len(header) < BLOCK:
            raise ValueError(f"truncated: no end of the archive at byte {position:,}")
        if not header.strip(b"\0"):
            return
        _check_header(header, position)
        kind, size = header[156:157], _number(header[124:136])
        if kind in REGULAR:
            size = long.get("size", size)
        if size < 0:
            raise ValueError(f"damaged at byte {position:,}")
        start = position = position + BLOCK
        if kind in FOLLOWED_BY_DATA:
            position += -(-size // BLOCK) * BLOCK
        if position > length:
            raise ValueError(f"truncated: {length:,} of {position:,} bytes or more")
        if kind == b"L":
            long["path"] = read(start, size).rstrip(b"\0")
        elif kind == b"x":
            long.update(_pax(read(start, size)))
        elif kind in REGULAR:
            yield long.get("path") or _name(header), start, size
            long = {}
        elif kind not in b"gK":
            if kind == b"5":
                yield long.get("path") or _name(header), -1, 0
            long = {}


def _check_header(header, position):
    stored = header[148:156]
    try:
        # The sum over the header with eight spaces in place of the sum.
        good = sum(header) - sum(stored) + 256 == _number(stored)
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"no tar archive, or damaged at byte {position:,}")


def _number(field):
    if field[0] & 0x80:
        return int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
    return int(field.strip(b" \0").split(b"\0")[0] or b"0", 8)


def _name(header):
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0]
    # Only POSIX archives have a prefix there.
    posix = header[257:263] == MAGIC + b"\0"
    return prefix + b"/" + name if prefix and posix else name


def _pax(content):
    found = {}
    while content:
        length, _, _ = content.partition(b" ")
        if int(length) < 1:
            raise ValueError("damaged extended header")
        record, content = content[: int(length)], content[int(length) :]
        key, _, value = record[len(length) + 1 : -1].partition(b"=")
        if key == b"path":
            found["path"] = value
        elif key == b"size":
            found["size"] = int(value)
    return found


def index_shard(read, length, where):
    """The `Shard` of an archive; arguments as for `members`.

    Raises:
        ValueError: It is damaged or truncated, or has a name that leads out of it.
    """
    shard = _Indexing(read)
    try:
        for name, offset, size in members(read, length):
            if offset < 0:
                continue
            name = name.removeprefix(b"./")
            if name[:1] == b"/" or b".." in name and b".." in name.split(b"/"):
                raise ValueError(f"the name {os.fsdecode(name)!r} leads out of it")
            if name[:1] != b"." and b"/." not in name:
                shard.add(name, offset, size)
        return shard.finish()
    except (ValueError, TypeError, LookupError) as error:
        raise ValueError(
            f"Expected a complete tar archive. Received: {where} ({error})"
        ) from error


class _Indexing:
    """Groups files of one name that follow one another."""

    def __init__(self, read):
        self.read = read
        self.shard = Shard([], array("q"), array("q"), [], (), "", [])
        self.key, self.group = None, []

    def add(self, name, offset, size):
        if name == DESCRIPTION:
            found = json.loads(self.read(offset, size))
            names = tuple(map(str, found["class_names"]))
            part = str(found.get("part", ""))
            self.shard = self.shard._replace(class_names=names, part=part)
        elif name == CLASSES:
            self.shard = self.shard._replace(
                class_names=class_names_in(self.read(offset, size))
            )
        else:
            dot = name.find(b".", name.rfind(b"/") + 1)
            key = name if dot < 0 else name[:dot]
            if key != self.key:
                self._flush()
                self.key = key
            self.group.append((name[len(key) :].lower(), name, offset, size))

    def _flush(self):
        """Adds the images of a group: those of one suffix, else of several."""
        group, self.group = self.group, []
        images = [one for one in group if one[0] in IMAGES]
        images = images or [one for one in group if one[0].endswith(IMAGES)]
        label = self._label(group) if images and len(group) > len(images) else None
        for one in images:
            self.shard.names.append(one[1])
            self.shard.offsets.append(one[2])
            self.shard.sizes.append(one[3])
            self.shard.labels.append(label)
        self.shard.left_out.extend(
            one[1]
            for one in group
            if one not in images and not (images and one[0].endswith(LABEL_SUFFIXES))
        )

    def _label(self, group):
        for wanted in LABEL_SUFFIXES:
            for suffix, _, offset, size in group:
                if suffix.endswith(wanted) and size <= LABEL_BYTES:
                    if wanted == TEXT and b"/" in self.key:
                        continue
                    text = label_of(wanted, self.read(offset, size))
                    if text is not None:
                        return text
        return None

    def finish(self):
        self._flush()
        return self.shard


def label_of(suffix, content):
    """The label in a file beside an image, as text; `None` without one."""
    text = content.decode("utf-8-sig", "replace").strip()
    if suffix == b".json":
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return None
        found = found if isinstance(found, dict) else {}
        value = next((found[key] for key in LABEL_COLUMNS if key in found), None)
        text = str(value) if isinstance(value, (str, int)) else ""
    short = 0 < len(text) <= LABEL_LENGTH and "\n" not in text
    return sys.intern(text) if short else None


def is_compressed(content):
    """Checks the first bytes of a file for those of a compressed archive."""
    return content.startswith(COMPRESSED)


def class_names_in(content):
    """Names of classes, one per line."""
    lines = content.decode("utf-8-sig").splitlines()
    return tuple(line.strip() for line in lines if line.strip())
