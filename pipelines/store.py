"""A described folder of numbered shards that appear when they are complete.

Results of something expensive, in the order of what they are computed from: a JSON
description with everything that decides them, and one file per few hundred, `.npz`
unless a subclass has another format.
Shards are named by the numbers of their examples and never changed. An interrupted
computation resumes after them, and several processes or hosts may fill one folder: the
result does not depend on who wrote a shard, or when. Nothing is pickled.
"""

import json
import os
import pathlib
import shutil
import socket
from typing import NamedTuple

import numpy as np

from keras_attn._checks import positive_integer
from keras_attn.pipelines.files import DAMAGE, read_arrays, read_json, write_then_rename


class Shard(NamedTuple):
    """The examples `start` to `stop` of a store, and the path of their file."""

    start: int
    stop: int
    path: pathlib.Path


class Store:
    """A folder of shards. A subclass describes those of one use.

    It sets `CONTENT`, a plural for messages; `FORMAT` and `VERSION` of the description
    and its file name `DESCRIPTION`; `SHARD`, the number of examples per file; `MAKER`,
    who fills the folder; and defines `layout`.

    Args:
        path: The folder.
        maker: Dict of everything that decides the results, plain data; `examples` is
            their number.
        shard: Examples per file; by default `SHARD`.
        notes: Plain data that decides nothing.
    """

    CONTENT = FORMAT = DESCRIPTION = MAKER = ""
    VERSION = 1
    SHARD = 512

    def __init__(self, path, maker, shard=None, notes=None):
        self.path = pathlib.Path(path)
        # As it is read back: lists in place of tuples.
        self.maker = json.loads(json.dumps(maker))
        self.shard = positive_integer("shard", self.SHARD if shard is None else shard)
        self.notes = notes or {}
        positive_integer("examples", self.maker["examples"])

    def layout(self, count):
        """Names, dtypes and shapes of the arrays of a shard of `count` examples.

        Returns:
            Dict from names to `(dtype, shape)`; `None` stands for any size.
        """
        raise NotImplementedError

    def check(self, arrays, shard):
        """Raises `ValueError` if arrays of this layout are not those of a shard."""

    suffix = ".npz"

    def encode(self, file, arrays):
        """Writes the arrays of a shard to an open file; equal ones as equal bytes."""
        np.savez(file, **arrays)

    def decode(self, path):
        """Dict of the arrays in the file of a shard; for errors see `DAMAGE`."""
        return read_arrays(path)

    @classmethod
    def open(cls, path):
        """The store in a folder, complete or not.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If its description is damaged, or of another version.
        """
        path = pathlib.Path(path)

        def read(stored):
            store = cls(path, stored["maker"], stored["shard"], stored["notes"])
            store.layout(1)
            return store

        return read_description(path / cls.DESCRIPTION, cls, read)

    @classmethod
    def open_or_create(cls, path, maker, notes=None):
        """The store in a folder; a new one if there is none.

        Raises:
            ValueError: If the folder is the store of another maker, or holds something
                else.
        """
        new = cls(path, maker, notes=notes)
        if (new.path / cls.DESCRIPTION).exists():
            store = cls.open(path)
            differences = _differences(store.maker, new.maker)
            if not differences:
                return store
            # Where nothing was computed yet, nothing can be lost or mistaken.
            if len(store.missing()) < len(store.shards()):
                raise ValueError(
                    f"The {cls.CONTENT} in {path} were made otherwise: "
                    f"{'; '.join(differences)}. Choose another folder."
                )
        # Another process may have described it by now.
        elif not is_unused(new.path) and not (new.path / cls.DESCRIPTION).exists():
            raise ValueError(
                f"Expected a new folder or one of {cls.CONTENT}. "
                f"Received: {path}, which holds something else."
            )
        new.write_description()
        return new

    def write_description(self):
        described = {
            "format": self.FORMAT,
            "version": self.VERSION,
            "maker": self.maker,
            "shard": self.shard,
            "notes": self.notes,
        }
        text = json.dumps(described, indent=1).encode()
        self._write(self.path / self.DESCRIPTION, lambda file: file.write(text))

    def __len__(self):
        return self.maker["examples"]

    def shards(self):
        """All `Shard`s, whether their files are there or not."""
        stops = [*range(self.shard, len(self), self.shard), len(self)]
        return [
            Shard(start, stop, self.path / f"{start:08}-{stop:08}{self.suffix}")
            for start, stop in zip([0, *stops], stops, strict=False)
        ]

    def missing(self):
        """Those of `shards` that are still to be computed."""
        return [shard for shard in self.shards() if not shard.path.exists()]

    def check_shards(self):
        """Reads what is there.

        Raises:
            ValueError: If a file is damaged; the message names the first.
        """
        for shard in self.shards():
            if shard.path.exists():
                self.read_shard(shard)

    def read_shard(self, shard):
        """Dict of the arrays of a shard.

        Raises:
            ValueError: If its file is missing or damaged.
        """
        layout = self.layout(shard.stop - shard.start)
        try:
            read = self.decode(shard.path)
            arrays = {name: read[name] for name in layout}
            for name, (dtype, shape) in layout.items():
                check_array(name, arrays[name], dtype, shape)
            self.check(arrays, shard)
        except DAMAGE as error:
            raise ValueError(
                f"Cannot read {shard.path}, which is damaged ({error}). Delete it, and "
                f"{self.MAKER} computes it again."
            ) from error
        return arrays

    def read_shards(self):
        """Dict of the arrays of all shards, joined.

        Raises:
            ValueError: If a file is missing or damaged.
        """
        missing = sum(shard.stop - shard.start for shard in self.missing())
        if missing:
            raise ValueError(
                f"Expected the {self.CONTENT} of {len(self)} examples. Received: "
                f"{self.path}, where those of {missing} are still to be computed: "
                f"repeat the {self.MAKER} that was interrupted, and it resumes."
            )
        parts = [self.read_shard(shard) for shard in self.shards()]
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

    def write_shard(self, shard, arrays):
        """Adds the arrays of a shard.

        Raises:
            ValueError: If they cannot be written.
        """
        self._write(shard.path, lambda file: self.encode(file, arrays))

    def delete(self):
        """Deletes the folder."""
        # Without its description, what a kill leaves is no store.
        (self.path / self.DESCRIPTION).unlink()
        shutil.rmtree(self.path)

    def _write(self, path, write):
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            writer = f"{socket.gethostname()}-{os.getpid()}"
            with write_then_rename(path, writer) as file:
                write(file)
        except OSError as error:
            raise ValueError(
                f"Expected to write {self.CONTENT} to {self.path}. "
                f"Received: {error.strerror or error}"
            ) from error


def read_description(path, kind, read):
    """Reads the JSON description of a store.

    `kind` is a class with `CONTENT`, `FORMAT`, `VERSION` and `MAKER`, see `Store`.
    `read` makes the result of the description; what it raises of
    `keras_attn.pipelines.files.DAMAGE` is damage.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or of another version.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected the folder of {kind.CONTENT}. Received: {path.parent}, without "
            f"{path.name}. {kind.MAKER} makes one."
        )
    remedy = f"Delete the folder, and {kind.MAKER} makes it anew."
    try:
        stored = read_json(path)
        if stored["format"] != kind.FORMAT:
            raise ValueError(f"of the format {stored['format']!r}")
        version = stored["version"]
        if version == kind.VERSION:
            return read(stored)
    except DAMAGE as error:
        raise ValueError(
            f"Cannot read {path}, which is damaged or not of this program ({error}). "
            f"{remedy}"
        ) from error
    raise ValueError(
        f"Cannot read {path}, which is of version {version}; this program reads "
        f"version {kind.VERSION}. {remedy}"
    )


def check_array(name, array, dtype, shape):
    """Raises `ValueError` if an array has another dtype or shape; `None` is any."""
    # Texts are as wide as the longest.
    fits = array.dtype.kind == "U" if dtype == "str" else array.dtype == dtype
    fits = fits and array.ndim == len(shape)
    sizes = zip(array.shape, shape, strict=False)
    if not fits or any(wanted not in (None, size) for size, wanted in sizes):
        raise ValueError(f"{name} of {array.dtype}, shape {array.shape}")


def is_unused(path):
    """Checks that a folder holds nothing but what a kill while writing leaves."""
    return not path.exists() or (
        path.is_dir() and all(f.name.endswith(".partial") for f in path.iterdir())
    )


def _differences(there, now):
    """`FIELD=THIS there, OTHER now` for all that is not the same."""
    return [
        f"{name}={_short(there.get(name))} there, {_short(now.get(name))} now"
        for name in {**there, **now}
        if there.get(name) != now.get(name)
    ]


def _short(value):
    return f"{value[:12]}..." if isinstance(value, str) and len(value) > 24 else value
