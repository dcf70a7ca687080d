"""The files of a large index, in arrays."""

import collections.abc
import os

import numpy as np

from keras_attn.pipelines.collections.packed import Packed
from keras_attn.pipelines.files import read_arrays
from keras_attn.pipelines.store import check_array


class Listing(collections.abc.Mapping):
    """Mapping from names to `(bytes, nanoseconds)`, see `IndexStore`, kept in arrays.

    Going through it makes one name at a time; only to look one up takes a dict.

    Args:
        names: `Packed`.
        stamps: `(files, 2)` integers.
    """

    def __init__(self, names, stamps):
        self.names, self.stamps, self._rows = names, stamps, None

    @classmethod
    def of(cls, files):
        """The listing of an iterable of names with their stamps."""
        stamps = []

        def names():
            for name, stamp in files:
                stamps.append(np.array(stamp, "int64"))
                yield os.fsencode(name)

        packed = Packed(names())
        return cls(packed, np.reshape(stamps, (-1, 2)).astype("int64"))

    @classmethod
    def read(cls, path):
        """The listing in a file; for errors see `keras_attn.pipelines.files.DAMAGE`."""
        arrays = read_arrays(path)
        layout = {"names": ("uint8", (None,)), "ends": ("int64", (None,))}
        layout["stamps"] = ("int64", (len(arrays["ends"]) - 1, 2))
        for name, (dtype, shape) in layout.items():
            check_array(name, arrays[name], dtype, shape)
        names = Packed.of(arrays["names"].tobytes(), arrays["ends"])
        return cls(names, arrays["stamps"])

    def write(self, file):
        block, ends = self.names.described()
        names = np.frombuffer(block, "uint8")
        np.savez(file, names=names, ends=ends, stamps=self.stamps)

    def __len__(self):
        return len(self.names)

    def __iter__(self):
        return (self.names[row] for row in range(len(self)))

    def items(self):
        return ((name, self._stamp(row)) for row, name in enumerate(self))

    def __getitem__(self, name):
        if self._rows is None:
            self._rows = {name: row for row, name in enumerate(self)}
        return self._stamp(self._rows[name])

    def _stamp(self, row):
        return tuple(self.stamps[row].tolist())
