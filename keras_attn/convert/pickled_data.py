"""Lists, dictionaries, strings, numbers and NumPy arrays out of a pickle file.

Many ground truths are published so. Nothing of the file is run, see
`keras_attn.convert.pickle_program`.
"""

import re
from pathlib import Path

import numpy as np

from keras_attn.convert.checkpoint import CheckpointError
from keras_attn.convert.pickle_program import DAMAGES, PickleProgram

NUMBERS = re.compile("[<>|=]?([biuf][1248]|f16)")
ARRAY, SCALAR, BUFFER = "_reconstruct", "scalar", "_frombuffer"
# NumPy 2 renamed its modules, Python 3 that of its functions.
MODULES = {
    ARRAY: ("numpy.core.multiarray", "numpy._core.multiarray"),
    SCALAR: ("numpy.core.multiarray", "numpy._core.multiarray"),
    BUFFER: ("numpy.core.numeric", "numpy._core.numeric"),
    "bytes": ("builtins", "__builtin__"),
    "encode": ("_codecs",),
    "ndarray": ("numpy",),
    "dtype": ("numpy",),
}
NAMES = {
    f"{module}.{name}": name for name, modules in MODULES.items() for module in modules
}


def read_pickled_data(path):
    """The data in a pickle file.

    Args:
        path: File of any protocol, from Python 2 or 3.

    Returns:
        Dicts, lists, tuples, strings, bytes, numbers, `None`, and NumPy arrays of
        numbers, which are not writeable.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is no pickle, is damaged, or holds anything else.
            It is a `ValueError`.

    Example:

    >>> sorted(read_pickled_data("gnd_roxford5k.pkl"))
    ['gnd', 'imlist', 'qimlist']
    """
    program = Path(path).read_bytes()
    try:
        return _Program().run(program)
    except CheckpointError as error:
        reason = str(error)
    except DAMAGES as error:
        reason = f"is damaged ({type(error).__name__}: {error})"
    raise CheckpointError(
        "Expected a pickle file of lists, strings, numbers and arrays. "
        f"Received: {path}, which {reason}"
    )


class _Unfinished:
    """An array or a number type whose content follows in the program."""

    def __init__(self, finish):
        self.finish = finish
        # Where the program remembers it.
        self.places = []


class _Program(PickleProgram):
    """A description of containers, strings, numbers and arrays."""

    names = PickleProgram.names | frozenset(NAMES)
    literals = frozenset(
        # Strings of Python 2 are bytes, and mostly text; they are read as Latin-1.
        ("STRING", "BINSTRING", "SHORT_BINSTRING")
        + ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
    )
    content = "lists, strings, numbers and arrays"

    def makers(self):
        own = {
            ARRAY: lambda *_: _Unfinished(_array),
            SCALAR: lambda dtype, raw: np.frombuffer(_bytes(raw), _known(dtype))[0],
            BUFFER: lambda raw, dtype, shape, order: _array(
                (1, shape, dtype, order == "F", raw)
            ),
            "dtype": _unfinished_dtype,
            "bytes": bytes,
            "encode": lambda text, _: _bytes(text),
        }
        named = {text: own[name] for text, name in NAMES.items() if name in own}
        return {**super().makers(), **named}

    def put(self, index):
        super().put(index)
        if isinstance(self.stack[-1], _Unfinished):
            self.stack[-1].places.append(index)

    def finished(self, target, state):
        if not isinstance(target, _Unfinished):
            return super().finished(target, state)
        finished = target.finish(state)
        self.memory.update(dict.fromkeys(target.places, finished))
        return finished


def _unfinished_dtype(text, *_):
    if not isinstance(text, str) or not NUMBERS.fullmatch(text):
        raise CheckpointError(f"holds arrays of {text!r}, which are no numbers")
    return _Unfinished(lambda state: np.dtype(text).newbyteorder(state[1]))


def _known(dtype):
    if not isinstance(dtype, np.dtype):
        raise CheckpointError("is damaged: an array without a type")
    return dtype


def _array(state):
    """The array of `(version, shape, dtype, whether by columns, bytes)`."""
    _, shape, dtype, by_columns, raw = state
    values = np.frombuffer(_bytes(raw), _known(dtype))
    return values.reshape(shape, order="F" if by_columns else "C")


def _bytes(raw):
    return raw.encode("latin-1") if isinstance(raw, str) else bytes(raw)
