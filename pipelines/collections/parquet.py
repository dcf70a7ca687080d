"""Images in a column of Parquet files; row groups are read when they are needed."""

import json
import threading
from collections import OrderedDict

import numpy as np

from keras_attn.pipelines.collections.filesystems import check_stamp
from keras_attn.pipelines.collections.labels import LABEL_COLUMNS, Labels

IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "bytes", "content")
# Row groups in memory: these bytes of them, and at least one.
CACHED = 2**28


class ParquetFiles:
    """Reads the images of Parquet files.

    Args:
        filesystem: A `Local` or `Remote`.
        paths: The files.
        column, label_column: Names of columns; found by default.
    """

    def __init__(self, filesystem, paths, column=None, label_column=None):
        self.filesystem, self.paths = filesystem, tuple(paths)
        self.stamps = [filesystem.stamp(path) for path in paths]
        first = self._file(0)
        self.column = column or _image_column(first.schema_arrow, self._url(0))
        self.label_column = label_column or _label_column(first.schema_arrow)
        # Rows before each group of rows of each file.
        self.starts = []
        for number in range(len(paths)):
            file = first if number == 0 else self._file(number)
            names = file.schema_arrow.names
            if self.column not in names or not _is_image(
                file.schema_arrow.field(self.column)
            ):
                raise _no_column(self.column, file.schema_arrow, self._url(number))
            groups = range(file.metadata.num_row_groups)
            rows = [file.metadata.row_group(group).num_rows for group in groups]
            self.starts.append(np.cumsum([0, *rows]))
        self.counts = [int(starts[-1]) for starts in self.starts]
        self._reset()

    def _reset(self):
        self._cache, self._lock = OrderedDict(), threading.Lock()

    def __getstate__(self):
        return {**self.__dict__, "_cache": None, "_lock": None}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._reset()

    def _url(self, number):
        return self.filesystem.url(self.paths[number])

    def _file(self, number):
        import pyarrow
        import pyarrow.parquet

        path = self.paths[number]
        check_stamp(self._url(number), self.filesystem.stamp(path), self.stamps[number])
        file = self.filesystem.open(path)
        try:
            return pyarrow.parquet.ParquetFile(file)
        except (pyarrow.ArrowException, OSError) as error:
            file.close()
            raise ValueError(
                f"Expected a complete Parquet file. Received: {self._url(number)} "
                f"({str(error).splitlines()[0]})"
            ) from error

    def labels(self):
        """The `Labels` of all rows."""
        texts, names = [], ()
        for number, count in enumerate(self.counts):
            column = self.label_column
            with self._file(number) as file:
                if column is None or column not in file.schema_arrow.names:
                    texts += [None] * count
                    continue
                names = names or _class_names(file.schema_arrow, column)
                values = file.read([column]).column(column).to_pylist()
            texts += [None if value is None else str(value) for value in values]
        return Labels.of(texts, names)

    def read(self, place):
        """Bytes of the image in a row, `(file, row)`."""
        number, row = place
        group = int(np.searchsorted(self.starts[number], row, side="right")) - 1
        images = self._group(number, group)
        value = images[int(row - self.starts[number][group])].as_py()
        value = value.get("bytes") if isinstance(value, dict) else value
        if value is None:
            raise OSError(f"row {row} of {self._url(number)} holds no image")
        return value

    def _group(self, number, group):
        with self._lock:
            if (number, group) in self._cache:
                self._cache.move_to_end((number, group))
                return self._cache[number, group]
            images = self._read_group(number, group)
            self._cache[number, group] = images
            while (
                len(self._cache) > 1
                and sum(each.nbytes for each in self._cache.values()) > CACHED
            ):
                self._cache.popitem(last=False)
            return images

    def _read_group(self, number, group):
        import pyarrow

        try:
            with self._file(number) as file:
                images = file.read_row_group(group, [self.column]).column(0)
            rows = np.diff(self.starts[number])[group]
            if len(images) != rows:
                raise ValueError(f"{len(images)} of {rows} rows")
            return images
        except (pyarrow.ArrowException, ValueError) as error:
            raise OSError(
                f"damaged rows in {self._url(number)} ({str(error).splitlines()[0]})"
            ) from error

    def stamp(self, place):
        size, version = self.stamps[place[0]]
        return size, f"{version} {place[1]}"


def _is_image(field):
    import pyarrow.types as types

    kind = field.type
    if types.is_struct(kind):
        names = [kind.field(i).name for i in range(kind.num_fields)]
        return "bytes" in names and _is_image(kind.field("bytes"))
    return types.is_binary(kind) or types.is_large_binary(kind)


def _image_column(schema, where):
    """The column of images: one of `IMAGE_COLUMNS`, or the only one of bytes."""
    names = [field.name for field in schema if _is_image(field)]
    named = [name for name in names if name.lower() in IMAGE_COLUMNS]
    if not names or (len(named) != 1 and len(names) != 1):
        raise _no_column(None, schema, where)
    return (named if len(named) == 1 else names)[0]


def _no_column(column, schema, where):
    wanted = "one column" if column is None else f"the column {column!r}"
    columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
    return ValueError(
        f"Expected {wanted} of image bytes. Received: {where} with {columns}"
    )


def _label_column(schema):
    names = {name.lower(): name for name in schema.names}
    return next((names[name] for name in LABEL_COLUMNS if name in names), None)


def _class_names(schema, column):
    """Names of classes in the metadata that Hugging Face data sets write."""
    try:
        found = json.loads((schema.metadata or {})[b"huggingface"])
        return tuple(map(str, found["info"]["features"][column]["names"]))
    except (KeyError, TypeError, ValueError):
        return ()
