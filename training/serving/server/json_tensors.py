"""The JSON of TensorFlow Serving's REST API <-> NumPy."""

import base64
import binascii
import itertools
import json
import math
import re

import numpy as np
import orjson

from keras_attn.training.serving.server.errors import ServingError, invalid
from keras_attn.training.serving.server.tensors import exact_array, string_array

MAX_RANK = 32
BEYOND = re.compile(rb"[eE]\+?[0-9]{3}|[0-9]{300}")
BLANKS = str.maketrans("", "", " \t\n\v\f\r")
# Types of a tensor's values in JSON.
JSON_TYPES = {
    "bool": {bool},
    **dict.fromkeys(("int8", "int16", "int32", "int64"), {int}),
    **dict.fromkeys(("uint8", "uint16", "uint32", "uint64"), {int}),
    **dict.fromkeys(("float16", "bfloat16", "float32", "float64"), {int, float}),
}


def parse(body):
    """The JSON object of a request's body (bytes).

    `NaN`, `Infinity` and `-Infinity` are numbers, as in TensorFlow Serving.
    """
    # Slower, so only where a number may be beyond the range of a double.
    strict = {"parse_float": _finite} if BEYOND.search(body) else {}
    try:
        request = json.loads(body, **strict)
    except RecursionError:
        raise invalid("JSON Parse error: nested too deeply") from None
    except ValueError as error:
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(request, dict):
        raise invalid("Expected a JSON object")
    name = request.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid("'signature_name' key must be a string value.")
    return request


def explaining(request):
    """The signature that explains: another one if the request has `label`."""
    given = request.get("instances", request.get("inputs"))
    given = given if isinstance(given, list) else [given]
    labelled = any(isinstance(each, dict) and "label" in each for each in given)
    return "explain_class" if labelled else "explain"


def _finite(text):
    number = float(text)
    if math.isinf(number):
        raise ValueError("Number too big to be stored in double.")
    return number


def inputs_of(request, signature):
    """The inputs in a request for a prediction.

    Args:
        request: Result of `parse`.
        signature: `Signature`.

    Returns:
        `(inputs, rows)`: dict of arrays, and whether they were given row by row.
    """
    if "instances" in request and "inputs" in request:
        raise invalid("Expected one of 'inputs' and 'instances'. Received: both")
    if "instances" in request:
        columns = _columns(request["instances"], signature.inputs)
    elif "inputs" in request:
        columns = request["inputs"]
        if not isinstance(columns, dict) or _is_bytes(columns):
            columns = {_single(signature.inputs): columns}
        missing = set(signature.inputs) - set(columns)
        if missing:
            raise invalid(f"Missing named input: {min(missing)} in 'inputs' object.")
        columns = {name: columns[name] for name in signature.inputs}
    else:
        raise invalid("Missing 'inputs' or 'instances' key")
    inputs = {
        name: _array(value, signature.inputs[name].dtype, name)
        for name, value in columns.items()
    }
    return inputs, "instances" in request


def _columns(instances, specs):
    if not isinstance(instances, list) or not instances:
        raise invalid("Expected 'instances' to be a list with at least one value")
    named = [isinstance(value, dict) and not _is_bytes(value) for value in instances]
    if not any(named):
        return {_single(specs): instances}
    for index, value in enumerate(instances):
        if not named[index] or set(value) != set(specs):
            raise invalid(
                f"Failed to process element: {index} of 'instances' list. "
                f"Expected an object with the keys {', '.join(sorted(specs))}"
            )
    return {name: [value[name] for value in instances] for name in specs}


def _single(specs):
    if len(specs) != 1:
        raise invalid(
            f"Expected objects, with the keys {', '.join(sorted(specs))}. "
            "Received: plain values"
        )
    return next(iter(specs))


# ---- values --------------------------------------------------------------------------


def _array(value, dtype, name):
    flat, shape = _flatten(value)
    wanted = dtype.name
    if wanted == "string":
        return string_array([_bytes(leaf) for leaf in flat]).reshape(shape)
    if wanted not in JSON_TYPES:
        raise ServingError("UNIMPLEMENTED", f"Input {name}: JSON values to {wanted}")
    if not set(map(type, flat)) <= JSON_TYPES[wanted]:
        raise invalid(f"Input {name}: expected values of type {wanted}")
    is_float = float in JSON_TYPES[wanted]
    try:
        array = exact_array(flat, "float64" if is_float else wanted).reshape(shape)
    except OverflowError as error:
        text = f"Input {name}: expected values that fit into {wanted}"
        raise invalid(text) from error
    if not is_float:
        return array
    with np.errstate(over="ignore"):
        converted = array.astype(dtype.as_numpy_dtype)
    if (np.isinf(converted) & np.isfinite(array)).any():
        raise invalid(f"Input {name}: expected values that fit into {wanted}")
    return converted


def _flatten(value):
    """`(leaves, shape)` of nested lists, whose nesting may be anything."""
    flat, shape = [value], []
    while (types := set(map(type, flat))) == {list}:
        sizes = set(map(len, flat))
        if len(sizes) > 1:
            raise invalid(
                f"Expected lists of one size at level {len(shape) + 1}. "
                f"Received: {min(sizes)} and {max(sizes)} values"
            )
        if len(shape) == MAX_RANK:
            raise invalid(f"Expected lists nested at most {MAX_RANK} deep")
        shape += sizes
        flat = list(itertools.chain.from_iterable(flat))
    if list in types:
        raise invalid(f"Received: lists and values at level {len(shape) + 1}")
    return flat, tuple(shape)


def _is_bytes(value):
    return (
        isinstance(value, dict)
        and set(value) == {"b64"}
        and isinstance(value["b64"], str)
    )


def _bytes(value):
    try:
        if isinstance(value, str):
            return value.encode()
        if _is_bytes(value):
            # Padding may be left out, but not be wrong.
            text = value["b64"].translate(BLANKS)
            if "=" not in text:
                text += "=" * (-len(text) % 4)
            return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        text = "base64 decode" if isinstance(value, dict) else "encode as UTF-8"
        raise invalid(f"Unable to {text}") from error
    raise invalid('Expected strings, or {"b64": "..."} for bytes')


# ---- answers -------------------------------------------------------------------------


def answer(outputs, rows, verb="predict"):
    """The body of an answer.

    Args:
        outputs: Dict of arrays.
        rows: Whether to answer row by row.
        verb: `predict` or `explain`, after which rows are named.

    Returns:
        JSON, as bytes.
    """
    values = {name: _value(name, array) for name, array in outputs.items()}
    finite = all(
        np.isfinite(value).all()
        for value in values.values()
        if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind == "f"
    )
    if not finite:
        values = {name: _plain(value) for name, value in values.items()}
    if rows:
        name = "explanations" if verb == "explain" else "predictions"
        contents = {name: _rows(values, outputs)}
    elif len(values) == 1:
        contents = {"outputs": next(iter(values.values()))}
    else:
        contents = {"outputs": values}
    if not finite:  # orjson would write null.
        return json.dumps(contents).encode()
    return orjson.dumps(contents, option=orjson.OPT_SERIALIZE_NUMPY)


def _rows(values, outputs):
    sizes = {array.shape[:1] for array in outputs.values()}
    if len(sizes) != 1 or () in sizes:
        raise invalid(
            "Expected outputs of one batch size to answer row by row; ask with "
            "'inputs' instead of 'instances'"
        )
    if len(values) == 1:
        return list(next(iter(values.values())))
    names = list(values)
    return [
        dict(zip(names, row, strict=True)) for row in zip(*values.values(), strict=True)
    ]


def _value(name, array):
    """A value that orjson can write."""
    if array.dtype.hasobject:
        return _text(array.tolist(), name.endswith("_bytes"))
    if array.dtype.name in ("float16", "bfloat16"):
        array = array.astype("float32")
    if array.dtype.kind not in "biuf":
        raise ServingError("UNIMPLEMENTED", f"Output {name}: {array.dtype} to JSON")
    return np.ascontiguousarray(array) if array.ndim else array[()]


def _text(value, as_bytes):
    if isinstance(value, list):
        return [_text(item, as_bytes) for item in value]
    try:
        if not as_bytes:
            return value.decode()
    except UnicodeDecodeError:
        pass  # Not text, whatever its name.
    return {"b64": base64.b64encode(value).decode()}


def _plain(value):
    """Python numbers with as few digits as identify the value."""
    if not isinstance(value, (np.ndarray, np.generic)):
        return value
    if value.dtype.kind != "f":
        return value.tolist()
    return np.asarray(value).astype("U").astype("float64").tolist()
