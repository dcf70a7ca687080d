"""Checkpoints written by hand, without torch or safetensors."""

import dataclasses
import json
import struct
import zipfile

import numpy as np

STORAGE_CLASSES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


@dataclasses.dataclass
class Global:
    """A name that the pickle refers to: "module", "name"."""

    module: str
    name: str


@dataclasses.dataclass
class Call:
    """A global called with arguments, optionally with attributes set on the result."""

    function: Global
    arguments: tuple
    attributes: dict | None = None


@dataclasses.dataclass
class Reference:
    """A persistent id."""

    value: tuple


def pickled(value):
    """Protocol 2 of the pickle machine, as PyTorch uses it."""
    return b"\x80\x02" + _encoded(value) + b"."


def _encoded(value):
    if value is None:
        return b"N"
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        return b"\x8a\x08" + value.to_bytes(8, "little", signed=True)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        encoded = value.encode()
        return b"X" + struct.pack("<I", len(encoded)) + encoded
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_encoded, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(_encoded, value)) + b"e"
    if isinstance(value, dict):
        items = [_encoded(part) for item in value.items() for part in item]
        return b"}(" + b"".join(items) + b"u"
    if isinstance(value, Global):
        return f"c{value.module}\n{value.name}\n".encode()
    if isinstance(value, Reference):
        return _encoded(value.value) + b"Q"
    assert isinstance(value, Call), value
    encoded = _encoded(value.function) + _encoded(value.arguments) + b"R"
    if value.attributes is not None:
        encoded += _encoded(value.attributes) + b"b"
    return encoded


class TorchArchive:
    """Storages that tensors refer to, and the zip file that holds both."""

    def __init__(self):
        self.storages = []

    def storage(self, array, dtype=None, count=None):
        """A reference to a new storage with the array's bytes."""
        key = str(len(self.storages))
        self.storages.append(np.ascontiguousarray(array).tobytes())
        kind = Global("torch", STORAGE_CLASSES[dtype or array.dtype.name])
        return Reference(("storage", kind, key, "cuda:0", count or array.size))

    def tensor(self, array):
        strides = tuple(int(s) // array.itemsize for s in array.strides)
        return view(self.storage(array), 0, array.shape, strides)

    def state_dict(self, arrays):
        """An OrderedDict of tensors, with the metadata that modules add."""
        items = [(name, self.tensor(array)) for name, array in arrays.items()]
        call = Global("collections", "OrderedDict")
        return Call(call, (items,), {"_metadata": Call(call, ())})

    def save(self, path, content, folder="archive", **zip_options):
        program = content if isinstance(content, bytes) else pickled(content)
        with zipfile.ZipFile(path, "w", **zip_options) as archive:
            archive.writestr(f"{folder}/data.pkl", program)
            for key, raw in enumerate(self.storages):
                archive.writestr(f"{folder}/data/{key}", raw)
            archive.writestr(f"{folder}/version", "3\n")
        return path


def view(storage, offset, shape, strides):
    function = Global("torch._utils", "_rebuild_tensor_v2")
    hooks = Call(Global("collections", "OrderedDict"), ())
    return Call(function, (storage, offset, shape, strides, False, hooks))


def save_state_dict(path, arrays):
    """A checkpoint with these arrays, as `torch.save(net.state_dict(), path)`."""
    archive = TorchArchive()
    return archive.save(path, archive.state_dict(arrays))


def save_safetensors(path, header, data=b""):
    """A `.safetensors` file with this header (dict or bytes) and these numbers."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(begin, end, dtype="F32", shape=(3, 4)):
    """Entry of one tensor in the header, at these bytes of the data."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
