"""Reading what `torch.save` wrote, without torch and without running any of it.

The file is a zip archive: `data.pkl` describes the saved object as a program of the
pickle machine, the other members hold the numbers. Unpickling would run any code
that the program names. Here it is only read, see `keras_attn.convert.pickle_program`.
"""

import dataclasses
import zipfile

import numpy as np

from keras_attn.convert.checkpoint import DTYPES, CheckpointError
from keras_attn.convert.pickle_program import DAMAGES, Name, PickleProgram

RESAVE = (
    "If you trust the file, save its tensors alone with PyTorch: "
    "torch.save(checkpoint['model'], new_path)"
)
STORAGES = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
    "torch.storage.UntypedStorage": "uint8",
}
# Types without a storage of their own: their tensors are views of bytes.
TENSOR_DTYPES = {
    f"torch.{name}": DTYPES[name] for name in ("uint16", "uint32", "uint64")
}
SIZE = "torch.Size"
TENSOR = "torch._utils._rebuild_tensor_v2"
TYPED_TENSOR = "torch._utils._rebuild_tensor_v3"
PARAMETER = "torch._utils._rebuild_parameter"
KNOWN_NAMES = {
    *(SIZE, TENSOR, TYPED_TENSOR, PARAMETER),
    *STORAGES,
    *TENSOR_DTYPES,
}


@dataclasses.dataclass(frozen=True)
class Storage:
    """Numbers in a row, which tensors are views of."""

    raw: bytes
    values: np.ndarray


def read_torch_archive(path):
    """The object that `torch.save` wrote, tensors as NumPy arrays.

    Args:
        path: File in the zip format, PyTorch's default since 1.6.

    Returns:
        Dicts, lists, tuples, numbers, strings, `None` and arrays. The arrays are not
        writeable and share memory where the tensors did; bfloat16 comes as float32.

    Raises:
        CheckpointError: If the file is damaged, or holds anything else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _Archive(archive).load()
    except CheckpointError:
        raise
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"is truncated or damaged: {error}") from error
    except (*DAMAGES, OSError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"is damaged ({reason})") from error


class _Archive:
    """The members of the zip archive."""

    def __init__(self, archive):
        self.archive = archive
        self.storages = {}
        names = archive.namelist()
        programs = [name for name in names if name.split("/")[1:] == ["data.pkl"]]
        if len(programs) != 1:
            raise CheckpointError(
                "is a zip archive without the one data.pkl that torch.save writes"
            )
        self.folder = programs[0].split("/")[0]
        order = f"{self.folder}/byteorder"
        big = order in names and self.read(order).strip() == b"big"
        self.order = ">" if big else "<"

    def load(self):
        program = self.read(f"{self.folder}/data.pkl")
        return _Program(self.storage, self.order).run(program)

    def read(self, name):
        info = self.archive.getinfo(name)
        # torch.save does not compress, so nothing has to be able to swell in memory.
        if info.compress_type != zipfile.ZIP_STORED:
            raise CheckpointError(f"has a compressed member, {name!r}")
        return self.archive.read(info)

    def storage(self, description):
        """The storage that the program describes by these five values."""
        kind, name, key, _, count = description
        if kind != "storage" or not isinstance(name, Name) or type(key) is not str:
            raise CheckpointError("is damaged: a reference to something not a storage")
        if (name, key) not in self.storages:
            raw = self.read(f"{self.folder}/data/{key}")
            dtype = DTYPES[STORAGES[name.text]]
            if len(raw) != count * dtype.size:
                raise CheckpointError(
                    f"is damaged: storage {key!r} has {len(raw)} bytes, not "
                    f"{count * dtype.size}"
                )
            values = dtype.decode(raw, self.order)
            self.storages[name, key] = Storage(raw, values)
        return self.storages[name, key]


class _Program(PickleProgram):
    """A description of tensors."""

    names = PickleProgram.names | KNOWN_NAMES
    content = "tensors"
    advice = RESAVE

    def __init__(self, find_storage, order):
        super().__init__()
        self.find_storage = find_storage
        self.order = order

    def persistent(self, description):
        return self.find_storage(description)

    def makers(self):
        return {
            **super().makers(),
            SIZE: tuple,
            TENSOR: lambda *values: self.view(*values[:4]),
            TYPED_TENSOR: lambda *values: self.view(*values[:4], *values[6:7]),
            PARAMETER: lambda tensor, *_: tensor,
        }

    def view(self, storage, offset, shape, strides, dtype=None):
        """The tensor of this shape and these strides, counted in elements."""
        sizes = [offset, *shape, *strides]
        if any(type(size) is not int or size < 0 for size in sizes):
            raise CheckpointError(f"is damaged: a tensor with sizes {sizes}")
        values = storage.values
        if dtype is not None:
            values = TENSOR_DTYPES[dtype.text].decode(storage.raw, self.order)
        if 0 in shape:
            return np.zeros(shape, values.dtype)
        steps = [
            # Of an axis with one element PyTorch may keep any stride.
            stride * values.itemsize if size > 1 else 0
            for size, stride in zip(shape, strides, strict=True)
        ]
        # NumPy refuses a view that does not lie inside the buffer.
        start = offset * values.itemsize
        return np.ndarray(shape, values.dtype, values, start, steps)
