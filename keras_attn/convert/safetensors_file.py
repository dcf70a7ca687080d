"""Reading `.safetensors`: a length, a JSON header, the numbers."""

import json
import math

from keras_attn.convert.checkpoint import DTYPES, CheckpointError

LENGTH_BYTES = 8
CODES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "BOOL": "bool",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
}


def read_safetensors(path):
    """The tensors of a `.safetensors` file as NumPy arrays, by name.

    bfloat16 comes as float32. The arrays are not writeable.

    Raises:
        CheckpointError: If the file is damaged, or holds numbers of another type.
    """
    with open(path, "rb") as file:
        content = file.read()
    length = int.from_bytes(content[:LENGTH_BYTES], "little")
    start = LENGTH_BYTES + length
    if len(content) < LENGTH_BYTES or start > len(content):
        raise CheckpointError(
            f"is truncated or damaged: a header of {length} bytes in a file of "
            f"{len(content)}"
        )
    try:
        header = json.loads(content[LENGTH_BYTES:start])
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"is damaged: its header is no JSON: {error}") from error
    if not isinstance(header, dict):
        raise CheckpointError("is damaged: its header is no JSON object")
    data = memoryview(content)[start:]
    return {
        name: _tensor(name, entry, data)
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _tensor(name, entry, data):
    try:
        code, shape, (begin, end) = (
            entry[field] for field in ("dtype", "shape", "data_offsets")
        )
        numbers = [begin, end, *shape]
    except (TypeError, ValueError, KeyError) as error:
        raise CheckpointError(f"is damaged: no description of {name!r}") from error
    if not isinstance(code, str) or code not in CODES:
        raise CheckpointError(
            f"holds {name!r} with numbers of type {code!r}, not one of {tuple(CODES)}"
        )
    if any(type(number) is not int or number < 0 for number in numbers):
        raise CheckpointError(f"is damaged: {name!r} with sizes {numbers}")
    dtype = DTYPES[CODES[code]]
    if not begin <= end <= len(data) or end - begin != math.prod(shape) * dtype.size:
        raise CheckpointError(
            f"is truncated or damaged: {name!r} of shape {tuple(shape)} is said to lie "
            f"at bytes {begin} to {end} of {len(data)}"
        )
    try:
        return dtype.decode(data[begin:end]).reshape(shape)
    except ValueError as error:
        raise CheckpointError(f"is damaged: {name!r}: {error}") from error
