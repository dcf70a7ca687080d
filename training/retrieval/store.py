"""The folder of an index: descriptors of image files, and which model made them.

`index.json` names the model, the images' folder and the parts; every part is an `.npz`
file of names, sizes, times of change and descriptors. Parts are never changed, and
`index.json` is replaced after a part is complete, so that whatever happens the folder
is the index before or after. Nothing is pickled.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import zipfile
import zlib

import numpy as np

from keras_attn.pipelines.files import write_then_rename

FORMAT, VERSION = "keras-attn index", 1
DESCRIPTION = "index.json"
TYPES = ("flat", "float16", "ivf")
# Rows of a full part; parts of less than half of it are merged.
PART_ROWS = 8192

_PART = re.compile(r"part-\d{6}\.npz")
_LEFT_BEHIND = re.compile(r"\.(part-\d{6}\.npz|index\.json|ivf\.npz)\.partial")
_DAMAGES = (ValueError, OSError, EOFError, KeyError, MemoryError)
_DAMAGES = (*_DAMAGES, zipfile.BadZipFile, zlib.error)


@dataclasses.dataclass(frozen=True)
class Maker:
    """The model that made an index.

    Args:
        path: Folder of a run, or model file.
        checkpoint: `best` or `last` model of a run, or `None` outside a run.
        name: Name of the recipe, or of the file.
        digest: SHA-256 of the model file.
        dimension: Length of a descriptor.
        preprocessing: What is done to an image, see `ImageSpec`.
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
        """Whether both give the same descriptors, wherever their files are."""
        return all(
            getattr(self, field) == getattr(other, field)
            for field in ("digest", "dimension", "preprocessing")
        )


@dataclasses.dataclass(frozen=True)
class Part:
    """Some rows of an index.

    Args:
        names: Of the files, relative to the images' folder.
        stamps: `(rows, 2)`, size in bytes and time of change in nanoseconds.
        descriptors: `(rows, dimension)`, or `None` where they were not read.
    """

    names: tuple
    stamps: np.ndarray
    descriptors: np.ndarray | None = None

    def chosen(self, rows):
        names = tuple(self.names[row] for row in rows)
        rows = np.asarray(rows, int)
        return Part(names, self.stamps[rows], self.descriptors[rows])


class IndexStore:
    """An index on disk.

    Args:
        path: Its folder.
        maker: `Maker`.
        images: Absolute path of the images' folder.
        index_type: How it is searched, one of `TYPES`, see
            `keras_attn.training.retrieval.nearest`.
        parts: File names of the parts, the later ones the more recent.
    """

    def __init__(self, path, maker, images, index_type="flat", parts=()):
        self.path = pathlib.Path(path)
        self.maker = maker
        self.images = str(images)
        self.index_type = index_type
        self.parts = tuple(parts)
        self._listed = {}

    @classmethod
    def open(cls, path):
        """The index in a folder.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is damaged, or of a later version.
        """
        path = pathlib.Path(path)
        if not (path / DESCRIPTION).is_file():
            raise FileNotFoundError(
                f"Expected the folder of an index. Received: {path}, without an "
                f"{DESCRIPTION}. `keras-attn index` makes one."
            )
        try:
            stored = json.loads((path / DESCRIPTION).read_text())
            if stored["format"] != FORMAT or stored["version"] != VERSION:
                raise ValueError(f"not a {FORMAT} of version {VERSION}")
            if not all(_PART.fullmatch(part) for part in stored["parts"]):
                raise ValueError("strange names of parts")
            if stored["index_type"] not in TYPES:
                raise ValueError(f"index_type {stored['index_type']!r}")
            return cls(
                path,
                Maker(**stored["maker"]),
                stored["images"],
                stored["index_type"],
                stored["parts"],
            )
        except (*_DAMAGES, TypeError) as error:
            raise ValueError(f"Cannot read the index {path}: {error}") from error

    @classmethod
    def create(cls, path, maker, images, index_type="flat"):
        """A new index without rows, in a new or empty folder."""
        path = pathlib.Path(path)
        if path.exists() and not (path.is_dir() and _is_unused(path)):
            raise ValueError(
                "Expected a new folder, or the folder of an index. "
                f"Received: {path}, which holds something else."
            )
        path.mkdir(parents=True, exist_ok=True)
        store = cls(path, maker, images, index_type)
        store.write_description()
        return store

    def write_description(self):
        stored = {
            "format": FORMAT,
            "version": VERSION,
            "maker": dataclasses.asdict(self.maker),
            "images": self.images,
            "index_type": self.index_type,
            "parts": self.parts,
        }
        with write_then_rename(self.path / DESCRIPTION) as file:
            file.write(json.dumps(stored, indent=1).encode())

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

    # ---- rows ------------------------------------------------------------------------

    def stamps(self):
        """Dict from the names of the files to their size and time of change."""
        found = {}
        for part in self.parts:
            listed = self._names(part)
            pairs = zip(listed.names, listed.stamps.tolist(), strict=True)
            found.update((name, tuple(stamp)) for name, stamp in pairs)
        return found

    def counting(self):
        """Dict from the names of the parts to the numbers of the rows that count.

        A file that was described again counts where it is last.
        """
        owners = {
            file: (part, row)
            for part in self.parts
            for row, file in enumerate(self._names(part).names)
        }
        rows = {part: [] for part in self.parts}
        for part, row in owners.values():
            rows[part].append(row)
        return {part: sorted(numbers) for part, numbers in rows.items()}

    def read(self, part, rows):
        """The `Part` of these rows of a part."""
        return self._read(part).chosen(rows)

    def add(self, part):
        """Adds rows; what was there of the same names no longer counts."""
        self.parts = (*self.parts, self._write(part))
        self.write_description()

    def keep(self, stamps):
        """Drops all rows but those of these files in these states; merges small parts.

        Args:
            stamps: As `stamps` returns it.
        """
        counting = self.counting()
        kept, changed = [], {}
        for part, rows in counting.items():
            listed = self._names(part)
            live = [
                row
                for row in rows
                if stamps.get(listed.names[row]) == tuple(listed.stamps[row].tolist())
            ]
            if len(live) == len(listed.names) >= PART_ROWS // 2:
                kept.append(part)
            else:
                changed[part] = live
        if len(changed) > 1 or any(
            len(rows) < len(self._names(part).names) for part, rows in changed.items()
        ):
            new = [self._write(part) for part in self._packed(changed)]
            self.parts = (*kept, *new)
            self.write_description()
        self.clean()

    def clean(self):
        """Deletes the files of the index that it does not list."""
        for file in self.path.iterdir():
            is_part = _PART.fullmatch(file.name) and file.name not in self.parts
            if is_part or _LEFT_BEHIND.fullmatch(file.name):
                file.unlink()
                self._listed.pop(file.name, None)

    def _packed(self, chosen):
        """Full parts, made of chosen rows of others."""
        waiting = []
        for part, rows in chosen.items():
            waiting.append(self.read(part, rows))
            if sum(len(each.names) for each in waiting) >= PART_ROWS:
                whole = _joined(waiting)
                numbers = range(len(whole.names))
                yield whole.chosen(numbers[:PART_ROWS])
                waiting = [whole.chosen(numbers[PART_ROWS:])]
        whole = _joined(waiting)
        if whole.names:
            yield whole

    def _names(self, name):
        if name not in self._listed:
            self._listed[name] = self._read(name, with_descriptors=False)
        return self._listed[name]

    def _read(self, name, with_descriptors=True):
        path, dimension = self.path / name, self.maker.dimension
        try:
            with np.load(path, allow_pickle=False) as stored:
                names = tuple(json.loads(stored["names"].tobytes()))
                stamps = stored["stamps"]
                descriptors = stored["descriptors"] if with_descriptors else None
            if not all(isinstance(file, str) for file in names):
                raise ValueError("names that are no text")
            if stamps.shape != (len(names), 2) or stamps.dtype != np.int64:
                raise ValueError(f"stamps of {stamps.dtype}, shape {stamps.shape}")
            if with_descriptors and (
                descriptors.shape != (len(names), dimension)
                or descriptors.dtype != np.float32
            ):
                raise ValueError(
                    f"descriptors of {descriptors.dtype}, shape {descriptors.shape}"
                )
        except _DAMAGES as error:
            raise ValueError(
                f"Cannot read {path}, which is damaged ({error}). Make the index anew."
            ) from error
        return Part(names, stamps, descriptors)

    def _write(self, part):
        taken = [int(file.stem[5:]) for file in self.path.glob("part-??????.npz")]
        name = f"part-{max(taken, default=0) + 1:06}.npz"
        with write_then_rename(self.path / name) as file:
            np.savez(
                file,
                names=np.frombuffer(json.dumps(part.names).encode(), "uint8"),
                stamps=np.asarray(part.stamps, "int64"),
                descriptors=np.asarray(part.descriptors, "float32"),
            )
        return name


def _joined(parts):
    return Part(
        tuple(name for part in parts for name in part.names),
        np.concatenate([part.stamps for part in parts]),
        np.concatenate([part.descriptors for part in parts]),
    )


def _is_unused(path):
    """Whether a folder holds nothing, but for what a kill at the start leaves."""
    return all(_LEFT_BEHIND.fullmatch(file.name) for file in path.iterdir())
