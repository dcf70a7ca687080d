"""`Collection`: encoded images, wherever they lie."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np

from keras_attn.pipelines.collections.filesystems import REQUESTS
from keras_attn.pipelines.files import digest_of
from keras_attn.pipelines.images.files import counted_names


class Collection:
    """Encoded images in a fixed order, read when they are asked for.

    What is held of each is its name, its size and its place, in arrays. Another process
    gets it by pickling, or by the same call of `open_collection`.

    Attributes:
        kind: `folder`, `list`, `csv`, `tar` or `parquet`.
        source: What it was opened from.
        files: Reader of one image, such as `TarFiles`.
        left_out: Text that counts and names what is no image; empty without any.
        labels: `keras_attn.pipelines.collections.labels.Labels`, or `None`.
    """

    def __init__(
        self, kind, source, names, sizes, files, labels=None, left_out=(), facts=()
    ):
        self.kind, self.source, self.labels = kind, source, labels
        self._names, self.files, self._facts = names, files, facts
        self._sizes = np.asarray(sizes, np.int64)
        self.left_out = ""
        if len(left_out):
            self.left_out = counted_names(
                left_out, "file that is no image", "files that are no images"
            )
        if labels is not None and not labels.texts:
            self.labels = None
        if not len(names):
            raise ValueError(f"Expected images. Received: {source}, which holds none")

    def __len__(self):
        return len(self._names)

    def describe(self):
        """Dict of `kind`, `count` and `digest`, of names and sizes: plain data.

        The same images elsewhere have the same digest.
        """
        listed = (*self._names.described(), self._sizes, *self._facts)
        digest = digest_of(self.kind, *listed)
        return {"kind": self.kind, "count": len(self), "digest": digest}

    def names(self, start=0, stop=None):
        """List of the names of the images `start` to `stop`."""
        return [self._names[i] for i in range(*slice(start, stop).indices(len(self)))]

    def name(self, index):
        return self._names[index]

    def size(self, index):
        """Bytes of an image; -1 where they are not known before it is read."""
        return int(self._sizes[index])

    def read_one(self, index):
        """Bytes of an image.

        Raises:
            OSError: It cannot be read, or is another one than was listed.
        """
        return self.files.read(self._names, int(index), int(self._sizes[index]))

    def read(self, indices, errors="raise"):
        """Yields the bytes of images in the order of their indices.

        Args:
            indices: Integers, in any order; near ones are cheap.
            errors: `"raise"`, or `"give"` to yield the `OSError` in place of the bytes.
        """
        if self.files.remote:
            found = in_parallel(self._given, indices, REQUESTS)
        else:
            found = map(self._given, indices)
        for each in found:
            if isinstance(each, OSError) and errors == "raise":
                raise each
            yield each

    def _given(self, index):
        try:
            return self.read_one(index)
        except OSError as error:
            return error

    def stamp(self, index):
        """Size of an image, and a text that changes when its content does."""
        return self.files.stamp(self._names, int(index), int(self._sizes[index]))

    def entry(self, index):
        """The entry of an image in `Source.files`."""
        return self.files.entry(self._names, int(index))

    def class_names(self):
        """Names of the classes in the order of their numbers; empty without labels."""
        return self.labels.resolved()[0] if self.labels else ()

    def class_numbers(self):
        """Class of each image, (N,) int32; -1 without one."""
        if self.labels is None:
            return np.full(len(self), -1, np.int32)
        numbers = np.array([*self.labels.resolved()[1], -1], np.int32)
        return numbers[self.labels.numbers]


def in_parallel(function, items, threads):
    """Yields the results of a function in the order of its items, some ahead."""
    items = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        ahead = deque(
            pool.submit(function, each) for each in islice(items, 2 * threads)
        )
        while ahead:
            result = ahead.popleft().result()
            ahead.extend(pool.submit(function, each) for each in islice(items, 1))
            yield result


class SingleFiles:
    """Images that are a file each, below one folder."""

    def __init__(self, filesystem, root):
        self.filesystem, self.root = filesystem, root.rstrip("/")
        self.remote = filesystem.remote

    def _located(self, name):
        return self.filesystem, f"{self.root}/{name}"

    def read(self, names, index, size):
        filesystem, path = self._located(names[index])
        return filesystem.read(path)

    def stamp(self, names, index, size):
        filesystem, path = self._located(names[index])
        return filesystem.stamp(path)

    def entry(self, names, index):
        filesystem, path = self._located(names[index])
        return filesystem.url(path)


class TarFiles:
    """Images in tar archives, `names` in `Composed` order."""

    def __init__(self, filesystem, paths, stamps, offsets):
        self.filesystem, self.paths, self.stamps = filesystem, paths, stamps
        self.offsets, self.remote = offsets, filesystem.remote

    def read(self, names, index, size):
        number, _ = names.place(index)
        path, expected = self.paths[number], self.stamps[number]
        start = int(self.offsets[index])
        data = self.filesystem.read(path, start, size, expected)
        if len(data) != size:
            raise OSError(
                f"Expected {size:,} bytes at byte {start:,} of "
                f"{self.filesystem.url(path)}. Received: {len(data):,}; it has "
                "changed, or its server gives no parts of files"
            )
        return data

    def stamp(self, names, index, size):
        number, _ = names.place(index)
        return size, f"{self.stamps[number][1]} {self.offsets[index]}"

    def entry(self, names, index):
        number, _ = names.place(index)
        return self.filesystem.url(self.paths[number]), names.member(index)


class Rows:
    """Images in the rows of Parquet files, see `ParquetFiles`."""

    def __init__(self, tables):
        self.tables, self.remote = tables, tables.filesystem.remote

    def read(self, names, index, size):
        return self.tables.read(names.place(index))

    def stamp(self, names, index, size):
        return self.tables.stamp(names.place(index))

    def entry(self, names, index):
        number, row = names.place(index)
        tables = self.tables
        return tables.filesystem.url(tables.paths[number]), f"row {row}"
