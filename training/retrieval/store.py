"""The folder of an index: image files, and the model and method that described them.

`index.json` describes all of it and names the file of the one array; a new array gets a
new name before `index.json` is replaced, so whatever happens the folder is the index
before or after. `parts` is there while an indexing runs. Nothing is pickled.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re

import numpy as np

from keras_attn._checks import one_of
from keras_attn.pipelines.files import DAMAGE, digest_of, write_text, write_then_rename
from keras_attn.pipelines.store import Store, check_array, is_unused, read_description
from keras_attn.training.choices import INDEX_METHODS
from keras_attn.training.retrieval.listing import Listing

_ARRAY = re.compile(r"rows-\d{6}\.npy")
_LISTING = re.compile(r"files-\d{6}\.npz")
# Files from which on they are listed in a file beside the description.
LARGE = 20_000


@dataclasses.dataclass(frozen=True)
class Maker:
    """The model that made an index.

    Args:
        path: Folder of a run, or model file.
        checkpoint: `best` or `last` model of a run, or `None` outside a run.
        name: Name of the recipe, or of the file.
        digest: SHA-256 of the model file.
        dimension: Length of a descriptor.
        preprocessing: Dict of the fields of `ImageSpec` that decide the descriptors.
    """

    path: str
    checkpoint: str | None
    name: str
    digest: str
    dimension: int
    preprocessing: dict

    def __str__(self):
        return f"{self.name} (SHA-256 {self.digest[:12]}, {self.dimension} numbers)"

    def is_same(self, other):
        """Compares what decides the descriptors, wherever the files of models are."""
        return all(
            getattr(self, field) == getattr(other, field)
            for field in ("digest", "dimension", "preprocessing")
        )


@dataclasses.dataclass
class IndexStore:
    """An index on disk.

    Args:
        path: Its folder.
        maker: `Maker`.
        images: Absolute path of the images' folder.
        method: One of `INDEX_METHODS`, see `keras_attn.training.retrieval.methods`.
        settings: Dict of the method's settings, plain data.
        files: Mapping from the names of the files, relative to the images' folder, to
            `(bytes, nanoseconds)`: their size and time of change. Row `i` of the array
            belongs to file `i`, unless the method defines rows of its own.
        array: Name of the file of the array, or `None` if there are no files.
        listing: Name of the file of `files`, or `None` if they are in the description.
    """

    path: pathlib.Path
    maker: Maker
    images: str
    method: str = "global"
    settings: dict = dataclasses.field(default_factory=dict)
    files: dict = dataclasses.field(default_factory=dict)
    array: str | None = None
    listing: str | None = None

    CONTENT, MAKER = "an index", "`keras-attn index`"
    FORMAT, VERSION = "keras-attn index", 2
    DESCRIPTION = "index.json"

    @classmethod
    def open(cls, path):
        """The index in a folder.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is damaged, or of another version.
        """
        path = pathlib.Path(path)

        def read(stored):
            array = stored["array"]
            if array is not None and not _ARRAY.fullmatch(array):
                raise ValueError(f"array={array!r}")
            files, listing = stored["files"], None
            if isinstance(files, str):
                if not _LISTING.fullmatch(files):
                    raise ValueError(f"files={files!r}")
                files, listing = Listing.read(path / files), files
            return cls(
                path,
                Maker(**stored["maker"]),
                os.fspath(stored["images"]),
                one_of("method", stored["method"], INDEX_METHODS),
                dict(stored["settings"]),
                files if listing else _as_files(files),
                array,
                listing,
            )

        return read_description(path / cls.DESCRIPTION, cls, read)

    @classmethod
    def open_or_create(cls, path, maker, images, method, settings):
        """The index in a folder; a new one without files if there is none.

        Raises:
            ValueError: If the folder holds something else.
        """
        path = pathlib.Path(path)
        if (path / cls.DESCRIPTION).exists():
            return cls.open(path)
        if not is_unused(path):
            raise ValueError(
                "Expected a new folder, or the folder of an index. "
                f"Received: {path}, which holds something else."
            )
        path.mkdir(parents=True, exist_ok=True)
        store = cls(path, maker, str(images), method, settings)
        store.write_description()
        return store

    @property
    def names(self):
        """Sequence of the names of the files."""
        large = isinstance(self.files, Listing)
        return self.files.names if large else list(self.files)

    def write_description(self):
        stored = {
            "format": self.FORMAT,
            "version": self.VERSION,
            "maker": dataclasses.asdict(self.maker),
            "images": self.images,
            "method": self.method,
            "settings": self.settings,
            "array": self.array,
            "files": self.listing or _as_list(self.files),
        }
        write_text(self.path / self.DESCRIPTION, json.dumps(stored, indent=1))

    def write(self, files, rows):
        """Replaces the files and the array of the index.

        Args:
            files: Mapping, see `IndexStore`.
            rows: Their array, or a function that writes it to an open file.
        """
        number = int(self.array[5:11]) + 1 if self.array else 1
        array = f"rows-{number:06}.npy"
        self.write_array(array, rows)
        self.files, self.array, self.listing = files, array, None
        if len(files) >= LARGE:
            self.listing = f"files-{number:06}.npz"
            if not isinstance(files, Listing):
                self.files = Listing.of(files.items())
            with write_then_rename(self.path / self.listing) as file:
                self.files.write(file)
        self.write_description()
        for file in [*self.path.glob("rows-*.npy"), *self.path.glob("files-*.npz")]:
            if file.name not in (array, self.listing):
                file.unlink()

    def write_array(self, name, array):
        """Keeps an array beside the index; a function writes one to an open file."""
        with write_then_rename(self.path / name) as file:
            if callable(array):
                array(file)
            else:
                np.save(file, array, allow_pickle=False)

    def read_array(self, name, dtype, shape):
        """An array, mapped into memory, of this dtype and shape; `None` is any size.

        Raises:
            ValueError: If it is missing, damaged or another one.
        """
        try:
            array = np.load(self.path / name, mmap_mode="r", allow_pickle=False)
            check_array("array", array, dtype, shape)
        except DAMAGE as error:
            raise self.damaged(name, error) from error
        return array

    def damaged(self, name, reason):
        """The `ValueError` of a file that cannot be read."""
        return ValueError(
            f"Cannot read {self.path / name}, which is damaged ({reason}). Delete the "
            f"folder, and {self.MAKER} makes it anew."
        )

    @contextlib.contextmanager
    def locked(self):
        """Keeps other processes from changing the index; a killed one lets go.

        Raises:
            ValueError: If another process is changing it.
        """
        try:
            import fcntl
        except ImportError:  # Not on Windows.
            yield
            return
        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise ValueError(
                f"Expected an index that nobody changes. Received: {self.path}, which "
                "another process is changing."
            ) from None
        finally:
            os.close(handle)


class IndexParts(Store):
    """The descriptors of files that are being added to an index.

    An example is a file. A shard holds `numbers` of the files that could be read and
    were as listed, the `counts` of their descriptors, and all `descriptors`.
    """

    CONTENT, FORMAT = "descriptors of an index", "keras-attn index parts"
    DESCRIPTION, MAKER, SHARD = "parts.json", "`keras-attn index`", 256
    FOLDER = "parts"

    @classmethod
    def begun(cls, store, dtype, files=None):
        """The parts of an index, an `IndexStore`.

        The files to describe are by default those of the call that was interrupted;
        `dtype` is the name of that of the descriptors.
        """
        path = store.path / cls.FOLDER
        # Other files than those that were listed are another maker.
        left = cls.open(path).notes.get("files", []) if files is None else None
        listed = left if files is None else _as_list(files)
        maker = {
            "model": store.maker.digest,
            "method": store.method,
            "dimension": store.maker.dimension,
            "dtype": dtype,
            "examples": len(listed),
            "files": digest_of(json.dumps(listed)),
        }
        return cls.open_or_create(path, maker, {"files": listed})

    @classmethod
    def are_left(cls, store):
        """Checks for parts of an interrupted call in the folder of an index."""
        return (store.path / cls.FOLDER / cls.DESCRIPTION).exists()

    @property
    def files(self):
        """Dict of the files that are to be described, see `IndexStore`."""
        return _as_files(self.notes["files"])

    def layout(self, count):
        return {
            "numbers": ("int64", (None,)),
            "counts": ("int64", (None,)),
            "descriptors": (self.maker["dtype"], (None, self.maker["dimension"])),
        }

    def check(self, arrays, shard):
        numbers, counts = arrays["numbers"], arrays["counts"]
        outside = (numbers < shard.start) | (numbers >= shard.stop)
        if outside.any() or len(numbers) != len(counts) or (counts < 0).any():
            raise ValueError("files that are not of this shard")
        if counts.sum() != len(arrays["descriptors"]):
            raise ValueError("not as many descriptors as counted")

    def write_described(self, shard, numbers, described):
        """Adds files.

        Args:
            shard: One of `shards`.
            numbers: Numbers of the files.
            described: For each `(descriptors, dimension)`, or `(dimension,)` for one.
        """
        rows = [np.atleast_2d(row) for row in described]
        rows.append(np.empty((0, self.maker["dimension"])))
        arrays = {
            "numbers": np.array(numbers, "int64"),
            "counts": np.array([len(row) for row in rows[:-1]], "int64"),
            "descriptors": np.concatenate(rows).astype(self.maker["dtype"]),
        }
        self.write_shard(shard, arrays)

    def described(self):
        """The arrays of every shard, read one after the other."""
        return map(self.read_shard, self.shards())


def _as_list(files):
    return [[name, *stamp] for name, stamp in files.items()]


def _as_files(listed):
    files = {str(name): (size, time) for name, size, time in listed}
    if not all(isinstance(value, int) for stamp in files.values() for value in stamp):
        raise ValueError("files without size and time")
    return files
