"""Maps of a data set's images, computed once by a model and kept on disk.

The folder holds `maps.json`, which says what the maps were made from, and one `.npz`
file for every few hundred images: their maps and the keys of the images. Files are
never changed: they appear when they are complete, so whatever happens the folder holds
whole files only, and a computation that was interrupted goes on after them. Nothing is
pickled.
"""

import dataclasses
import json
import os
import pathlib
import re
import zipfile

import numpy as np

from keras_attn.pipelines.attention_maps.digests import digest_of_keys, image_keys
from keras_attn.version import __version__

FORMAT, FORMAT_VERSION = "keras-attn maps", 1
DESCRIPTION = "maps.json"
STORAGES = ("uint8", "float16")
# Images whose maps are in one file; an interrupted computation loses fewer.
SHARD = 512

_LEFT_BEHIND = re.compile(r".*\.\d+\.partial")
_DAMAGES = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


@dataclasses.dataclass(frozen=True)
class MapMaker:
    """Everything that decides what is in a cache.

    Args:
        model: Digest of the map model, see
            `keras_attn.pipelines.attention_maps.digests`.
        images: Digest of the images and their order.
        examples: Number of images.
        map_shape: Rows, columns and channels of a map.
        image_size: Height and width that the images were resized to.
        storage: `"uint8"` or `"float16"`.
        settings: What else the caller wants told apart, plain data.
        version: Of keras_attn.
    """

    model: str
    images: str
    examples: int
    map_shape: tuple
    image_size: tuple
    storage: str
    settings: dict
    version: str = __version__

    def differences(self, other):
        """`FIELD=THIS there, OTHER now` for all that is not the same."""
        return [
            f"{field.name}={_short(mine)} there, {_short(others)} now"
            for field in dataclasses.fields(self)
            for mine, others in [
                (getattr(self, field.name), getattr(other, field.name))
            ]
            if mine != others
        ]


def _short(value):
    return f"{value[:12]}..." if isinstance(value, str) and len(value) > 24 else value


class MapCache:
    """A folder of maps. `open` finds one; `keras_attn.pipelines.attention_maps.compute`
    fills it.

    Args:
        path: The folder.
        maker: `MapMaker`.
        shard: Images in one file.
        notes: Plain data about where the maps are from; it decides nothing.
    """

    def __init__(self, path, maker, shard=SHARD, notes=None):
        self.path = pathlib.Path(path)
        self.maker = maker
        self.shard = shard
        self.notes = notes or {}

    @classmethod
    def open(cls, path):
        """The cache in a folder, complete or not.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If its description is damaged, or of another version.
        """
        path = pathlib.Path(path)
        if not (path / DESCRIPTION).is_file():
            raise FileNotFoundError(
                f"Expected a folder of cached maps. Received: {path}, without a "
                f"{DESCRIPTION}. `keras-attn masks` makes one."
            )
        try:
            stored = json.loads((path / DESCRIPTION).read_text())
            if (stored["format"], stored["version"]) != (FORMAT, FORMAT_VERSION):
                raise ValueError(f"not {FORMAT} of version {FORMAT_VERSION}")
            fields = dict(stored["maker"])
            for name in ("map_shape", "image_size"):
                fields[name] = tuple(fields[name])
            maker, shard = MapMaker(**fields), stored["shard"]
            numbers = (shard, maker.examples, *maker.map_shape)
            if not all(isinstance(n, int) and n > 0 for n in numbers):
                raise ValueError(f"strange sizes {numbers}")
            if maker.storage not in STORAGES:
                raise ValueError(f"storage={maker.storage!r}")
            return cls(path, maker, shard, stored["notes"])
        except (*_DAMAGES, TypeError) as error:
            raise ValueError(
                f"Cannot read the cached maps {path}: {DESCRIPTION} is damaged or not "
                f"of this program ({error})."
            ) from error

    def __len__(self):
        return self.maker.examples

    def parts(self):
        """`(start, stop, file)` of all files, whether they are there or not."""
        return [
            (start, stop, self.path / f"{start:08}-{stop:08}.npz")
            for start in range(0, len(self), self.shard)
            for stop in [min(start + self.shard, len(self))]
        ]

    def missing(self):
        """Those of `parts` that are still to be computed."""
        return [part for part in self.parts() if not part[-1].exists()]

    def read(self):
        """All maps and the keys of their images.

        Returns:
            `(maps, keys)`: `(examples, rows, columns, channels)` as stored, see
            `keras_attn.pipelines.attention_maps.compute.as_floats`; `(examples, 16)`
            bytes, see `keras_attn.pipelines.attention_maps.digests`.

        Raises:
            ValueError: If the cache is not complete, or a file is damaged.
        """
        missing = sum(stop - start for start, stop, _ in self.missing())
        if missing:
            raise ValueError(
                f"Expected the maps of {len(self)} images. Received: {self.path}, "
                f"where those of {missing} are still to be computed: repeat the "
                "`keras-attn masks` that was interrupted, and it goes on."
            )
        parts = [self.read_part(*part) for part in self.parts()]
        maps, keys = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        if digest_of_keys(keys) != self.maker.images:
            raise ValueError(
                f"Expected the files of one computation in {self.path}. Received: "
                "files of other images among them. Compute the maps anew."
            )
        return maps, keys

    def maps_of(self, images):
        """The maps of images, in their order: of any of those that the cache holds.

        An image is found by what is in it, not by its number, so that splits of a data
        set share one cache.

        Args:
            images: `(examples, height, width, 3)`, 8-bit, or `StreamedImages`.

        Returns:
            `(len(images), rows, columns, channels)` as stored, see
            `keras_attn.pipelines.attention_maps.compute.as_floats`.

        Raises:
            ValueError: If the cache lacks one, or as in `read`.
        """
        maps, keys = self.read()
        rows = {key.tobytes(): row for row, key in enumerate(keys)}
        found = [rows.get(key.tobytes(), -1) for key in image_keys(images)]
        lacking = found.count(-1)
        if lacking:
            raise ValueError(
                f"Expected the maps of all {len(found)} images in {self.path}. "
                f"Received: a cache of {len(self)} images that lacks {lacking} of "
                "them; it was made of other images, of another size, or files have "
                "changed since."
            )
        return maps[np.asarray(found, int)]

    def read_part(self, start, stop, file):
        """Maps and keys of one of `parts`."""
        shape = (stop - start, *self.maker.map_shape)
        try:
            with np.load(file, allow_pickle=False) as stored:
                maps, keys = stored["maps"], stored["keys"]
            if maps.shape != shape or maps.dtype != self.maker.storage:
                raise ValueError(f"maps of shape {maps.shape}, {maps.dtype}")
            if keys.shape != (stop - start, 16) or keys.dtype != np.uint8:
                raise ValueError(f"keys of shape {keys.shape}, {keys.dtype}")
        except _DAMAGES as error:
            raise ValueError(
                f"Cannot read {file}, which is damaged ({error}). Delete it, and "
                "`keras-attn masks` computes these maps again."
            ) from error
        return maps, keys

    def write_part(self, file, maps, keys):
        """Adds the maps and keys of one of `parts`."""
        with _appearing(file) as stream:
            np.savez(stream, maps=maps, keys=keys)

    def _write_description(self):
        described = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "maker": dataclasses.asdict(self.maker),
            "shard": self.shard,
            "notes": self.notes,
        }
        with _appearing(self.path / DESCRIPTION) as stream:
            stream.write(json.dumps(described, indent=1).encode())


def opened_or_created(path, maker, notes=None):
    """The cache in a folder, a new one without maps if there is none.

    Raises:
        ValueError: If the folder is a cache of another maker, or holds something else.
    """
    path = pathlib.Path(path)
    if (path / DESCRIPTION).exists():
        cache = MapCache.open(path)
        differences = cache.maker.differences(maker)
        if differences and len(cache.missing()) == len(cache.parts()):
            # Nothing was computed yet that could be lost or mistaken.
            cache = MapCache(path, maker, SHARD, notes)
            cache._write_description()
        elif differences:
            raise ValueError(
                f"The cached maps in {path} were made otherwise: "
                f"{'; '.join(differences)}. Choose another folder."
            )
        return cache
    used = path.exists() and (
        not path.is_dir()
        or not all(_LEFT_BEHIND.fullmatch(file.name) for file in path.iterdir())
    )
    if used:
        raise ValueError(
            f"Expected a new folder or one of cached maps. Received: {path}, which "
            "holds something else."
        )
    cache = MapCache(path, maker, SHARD, notes)
    cache._write_description()
    return cache


class _appearing:
    """Context of a file that has its name only when it is complete."""

    def __init__(self, path):
        self.path = path
        self.temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")

    def __enter__(self):
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = open(self.temporary, "wb")
        except OSError as error:
            raise self._unwritable(error) from error
        return self.file

    def __exit__(self, kind, error, traceback):
        try:
            with self.file:
                if kind is None:
                    self.file.flush()
                    os.fsync(self.file.fileno())
            if kind is None:
                os.replace(self.temporary, self.path)
        except OSError as found:
            error = found
        finally:
            self.temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise self._unwritable(error) from error
        return False

    def _unwritable(self, error):
        return ValueError(
            f"Expected to write maps to {self.path.parent}. "
            f"Received: {error.strerror or error}"
        )
