"""Reading what `torch.save` wrote, without torch and without running any of it.

The file is a zip archive: `data.pkl` describes the saved object as a program of the
pickle machine, the other members hold the numbers. Unpickling would run whatever the
program says. Here the program is only read, instruction by instruction, by a machine
that knows the few instructions and names that dictionaries of tensors need.
"""

import dataclasses
import io
import pickletools
import struct
import zipfile

import numpy as np

from keras_attn.convert.checkpoint import DTYPES, CheckpointError

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
DICTIONARY = "collections.OrderedDict"
SIZE = "torch.Size"
TENSOR = "torch._utils._rebuild_tensor_v2"
TYPED_TENSOR = "torch._utils._rebuild_tensor_v3"
PARAMETER = "torch._utils._rebuild_parameter"
KNOWN_NAMES = {
    *(DICTIONARY, SIZE, TENSOR, TYPED_TENSOR, PARAMETER),
    *STORAGES,
    *TENSOR_DTYPES,
}


@dataclasses.dataclass(frozen=True)
class Name:
    """A name in some module that the program mentions. It is never looked up."""

    text: str


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
    except (
        *(ValueError, TypeError, LookupError, AttributeError, OverflowError),
        *(EOFError, OSError, RuntimeError, struct.error),
    ) as error:
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
        return _Machine(self.storage, self.order).run(program)

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


class _Machine:
    """The pickle machine, cut down to dictionaries of tensors."""

    def __init__(self, find_storage, order):
        self.find_storage = find_storage
        self.order = order
        self.stack = []
        self.marks = []
        self.memory = {}

    def run(self, program):
        for operation, argument, _ in pickletools.genops(io.BytesIO(program)):
            name = operation.name
            if name == "STOP":
                (result,) = self.stack
                return result
            if name in CONSTANTS:
                self.stack.append(CONSTANTS[name]())
            elif name in LITERALS:
                self.stack.append(argument)
            elif name in OPERATIONS:
                OPERATIONS[name](self, argument)
            elif name not in ("PROTO", "FRAME"):
                raise CheckpointError(
                    f"holds more than tensors: pickle instruction {name}. Nothing of "
                    f"it was run. {RESAVE}"
                )
        raise CheckpointError("is damaged: its description has no end")

    # ---- stack and memory ---------------------------------------------------------

    def mark(self, _):
        self.marks.append(len(self.stack))

    def since_mark(self):
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def last(self, count):
        start = len(self.stack) - count
        if start < (self.marks[-1] if self.marks else 0):
            raise CheckpointError("is damaged: its description lacks values")
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def put(self, index):
        self.memory[index] = self.stack[-1]

    def memoize(self, _):
        self.put(len(self.memory))

    def get(self, index):
        self.stack.append(self.memory[index])

    # ---- containers ---------------------------------------------------------------

    def make_tuple(self, items):
        self.stack.append(tuple(items))

    def make_list(self, _):
        self.stack.append(self.since_mark())

    def make_dict(self, _):
        items = self.since_mark()
        self.stack.append({})
        self.set_items(items)

    def append(self, items):
        if type(self.stack[-1]) is not list:
            raise CheckpointError("is damaged: it appends to something not a list")
        self.stack[-1].extend(items)

    def set_items(self, items):
        if type(self.stack[-1]) is not dict:
            raise CheckpointError("is damaged: it sets items of something not a dict")
        if any(type(key) not in (str, int) for key in items[::2]):
            raise CheckpointError("holds keys that are neither strings nor integers")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    # ---- names, and what is made with them ----------------------------------------

    def name(self, module_and_name):
        text = module_and_name.replace(" ", ".", 1)
        if text not in KNOWN_NAMES:
            raise CheckpointError(
                f"holds more than tensors: it refers to {text!r}. Nothing of it was "
                f"run. {RESAVE}"
            )
        self.stack.append(Name(text))

    def stack_name(self, _):
        module, name = self.last(2)
        self.name(f"{module} {name}")

    def persistent(self, _):
        (description,) = self.last(1)
        self.stack.append(self.find_storage(description))

    def reduce(self, _):
        name, arguments = self.last(2)
        makers = {
            DICTIONARY: self.dictionary,
            SIZE: tuple,
            TENSOR: lambda *values: self.view(*values[:4]),
            TYPED_TENSOR: lambda *values: self.view(*values[:4], dtype=values[6]),
            PARAMETER: lambda tensor, *_: tensor,
        }
        if not isinstance(name, Name) or name.text not in makers:
            raise CheckpointError("is damaged: it calls something that is no function")
        self.stack.append(makers[name.text](*arguments))

    def dictionary(self, pairs=()):
        self.stack.append({})
        self.set_items([item for key, value in pairs for item in (key, value)])
        return self.stack.pop()

    def state(self, _):
        """Attributes, such as the versions of a state dict's modules: left out."""
        (attributes,) = self.last(1)
        if type(self.stack[-1]) is not dict or type(attributes) is not dict:
            raise CheckpointError("is damaged: attributes of something not a dict")

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


CONSTANTS = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
    *("FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
OPERATIONS = {
    "MARK": _Machine.mark,
    "TUPLE": lambda machine, _: machine.make_tuple(machine.since_mark()),
    "TUPLE1": lambda machine, _: machine.make_tuple(machine.last(1)),
    "TUPLE2": lambda machine, _: machine.make_tuple(machine.last(2)),
    "TUPLE3": lambda machine, _: machine.make_tuple(machine.last(3)),
    "LIST": _Machine.make_list,
    "APPEND": lambda machine, _: machine.append(machine.last(1)),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "DICT": _Machine.make_dict,
    "SETITEM": lambda machine, _: machine.set_items(machine.last(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "MEMOIZE": _Machine.memoize,
    **dict.fromkeys(("GLOBAL", "INST"), _Machine.name),
    "STACK_GLOBAL": _Machine.stack_name,
    "BINPERSID": _Machine.persistent,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.state,
}
