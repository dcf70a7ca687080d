"""Files of a bulk job's results: NumPy, Parquet and JSON lines.

Results are a table, a dict of arrays with a row per image. Columns `name` and `problem`
are texts; a row with a problem has no values, which are zeros in arrays. Equal tables
are equal bytes.
"""

import json

import numpy as np

from keras_attn.pipelines.files import read_arrays

TEXTS = ("name", "problem")
FORMATS = ("npz", "parquet", "jsonl")


def require_arrow():
    """The module `pyarrow`, with its `parquet`.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "Expected pyarrow, for --format parquet. Install it: "
            "pip install 'keras-attn[shards]'"
        ) from error
    return pyarrow


def write(kind, file, rows):
    """Writes a table to an open file."""
    if kind == "npz":
        np.savez(file, **rows)
    elif kind == "parquet":
        require_arrow().parquet.write_table(_arrow_table(rows), file)
    else:
        file.writelines(map(_line, records(rows)))


def records(rows):
    """Yields each row as plain data; one with a problem has nothing else."""
    values = {name: _plain(array) for name, array in rows.items() if name not in TEXTS}
    texts = zip(rows["name"].tolist(), rows["problem"].tolist(), strict=True)
    for number, (name, problem) in enumerate(texts):
        if problem:
            yield {"name": name, "problem": problem}
        else:
            yield {
                "name": name,
                **{key: column[number] for key, column in values.items()},
            }


def read(kind, path, columns):
    """The table in a file; for errors see `keras_attn.pipelines.files.DAMAGE`.

    Args:
        columns: Dict from the names of the columns to the dtype and the shape of a row.
    """
    if kind == "npz":
        return read_arrays(path)
    if kind == "parquet":
        table = require_arrow().parquet.read_table(path)
        found = [
            (name, "" if problem is None else problem)
            for name, problem in zip(
                table["name"].to_pylist(), table["problem"].to_pylist(), strict=True
            )
        ]
        column_of = _from_arrow(table)
    else:
        with open(path, encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
        found = [(line["name"], line.get("problem", "")) for line in lines]
        column_of = lambda name: [line[name] for line in lines if name in line]  # noqa: E731
    names, problems = zip(*found, strict=True)
    rows = {"name": np.array(names, "str"), "problem": np.array(problems, "str")}
    good = rows["problem"] == ""
    for name, (dtype, shape) in columns.items():
        values = np.array(column_of(name), dtype).reshape(-1, *shape)
        rows[name] = np.zeros((len(names), *shape), values.dtype)
        rows[name][good] = values
    return rows


def printable(texts):
    """Array of texts; what is no Unicode in names of files is written as `\\\\xff`."""
    encoded = (text.encode("utf-8", "surrogateescape") for text in texts)
    return np.array([each.decode("utf-8", "backslashreplace") for each in encoded])


def _plain(array):
    """Rows as plain data; a real number as short as its type can tell it apart."""
    if array.dtype.kind == "f" and array.dtype.itemsize < 8:
        array = array.astype("str").astype("float64")
    return array.tolist()


def _line(record):
    return (json.dumps(record, ensure_ascii=False) + "\n").encode()


def _arrow_table(rows):
    arrow = require_arrow()
    absent = rows["problem"] != ""
    columns = {"name": arrow.array(rows["name"].tolist(), arrow.string())}
    problems = [problem or None for problem in rows["problem"].tolist()]
    columns["problem"] = arrow.array(problems, arrow.string())
    for name, array in rows.items():
        if name not in TEXTS:
            columns[name] = _arrow_column(array, absent)
    return arrow.table(columns)


def _arrow_column(array, absent):
    """A column of numbers, texts or nested lists; few programs read float16."""
    arrow = require_arrow()
    if array.dtype == "float16":
        array = array.astype("float32")
    kind = arrow.string() if array.dtype.kind == "U" else None
    flat = arrow.array(array.reshape(-1).tolist() if kind else array.reshape(-1), kind)
    for size in array.shape[:0:-1]:
        # Older versions of pyarrow write no list of fixed size that is absent.
        ends = np.arange(0, len(flat) + 1, size, dtype="int32")
        flat = arrow.ListArray.from_arrays(ends, flat)
    rows = [None if missing else number for number, missing in enumerate(absent)]
    return flat.take(arrow.array(rows, arrow.int64()))


def _from_arrow(table):
    """Function from the name of a column to the values of its rows without problem."""

    def values(name):
        column = table[name].drop_null().combine_chunks()
        while hasattr(column, "flatten") and hasattr(column.type, "value_type"):
            column = column.flatten()
        if isinstance(column, require_arrow().ChunkedArray):
            column = column.combine_chunks()
        return column.to_numpy(zero_copy_only=False)

    return values
