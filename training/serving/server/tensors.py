"""Conversion of `TensorProto` from and to NumPy, with few copies."""

import math

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

from keras_attn.training.serving.server.errors import ServingError, invalid

# Field with the values of a type, as TensorFlow writes them.
FIELDS = {
    types_pb2.DT_FLOAT: "float_val",
    types_pb2.DT_DOUBLE: "double_val",
    types_pb2.DT_INT8: "int_val",
    types_pb2.DT_INT16: "int_val",
    types_pb2.DT_INT32: "int_val",
    types_pb2.DT_UINT8: "int_val",
    types_pb2.DT_UINT16: "int_val",
    types_pb2.DT_INT64: "int64_val",
    types_pb2.DT_UINT32: "uint32_val",
    types_pb2.DT_UINT64: "uint64_val",
    types_pb2.DT_BOOL: "bool_val",
    types_pb2.DT_HALF: "half_val",
    types_pb2.DT_BFLOAT16: "half_val",
    types_pb2.DT_STRING: "string_val",
}
# NumPy below 2 wraps integers that do not fit.
NUMPY_WRAPS = np.lib.NumpyVersion(np.__version__) < "2.0.0"
# Tags of `float_val` and `double_val` on the wire: packed, so the values follow in
# their layout in memory.
PACKED = {types_pb2.DT_FLOAT: b"\x2a", types_pb2.DT_DOUBLE: b"\x32"}


def array_of(tensor, max_bytes):
    """The array of a `TensorProto`.

    Args:
        tensor: `TensorProto`.
        max_bytes: Limit of the array's size: values may be given once and repeated, so
            a few bytes can stand for any shape.

    Raises:
        ServingError: If type, shape and values do not fit together.
    """
    if tensor.dtype not in FIELDS:
        raise invalid(f"Expected a tensor of a known type. Received: {tensor.dtype}")
    if tensor.tensor_shape.unknown_rank:
        raise invalid("Expected a tensor with a shape")
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if min(shape, default=0) < 0 or len(shape) > 32:
        raise invalid(f"Expected the shape of a tensor. Received: {shape}")
    size = math.prod(shape)
    if tensor.dtype == types_pb2.DT_STRING:
        return _strings(list(tensor.string_val), shape, size)
    dtype = np.dtype(tf.dtypes.as_dtype(tensor.dtype).as_numpy_dtype)
    if size * dtype.itemsize > max_bytes:
        raise invalid(f"Expected at most {max_bytes} bytes. Received: shape {shape}")
    if tensor.tensor_content:
        if len(tensor.tensor_content) != size * dtype.itemsize:
            raise _mismatch(shape, f"{len(tensor.tensor_content)} bytes")
        return np.frombuffer(tensor.tensor_content, dtype).reshape(shape)
    values = list(getattr(tensor, FIELDS[tensor.dtype]))
    if len(values) not in (1, size) and size:
        raise _mismatch(shape, f"{len(values)} values")
    try:
        if FIELDS[tensor.dtype] == "half_val":
            array = exact_array(values, "uint16").view(dtype)
        else:
            array = exact_array(values, dtype)
    except OverflowError as error:
        raise invalid(str(error)) from error
    return np.resize(array, shape) if len(values) != size else array.reshape(shape)


def exact_array(values, dtype):
    """`np.array(values, dtype)` of a list of numbers, without wrapping.

    Raises:
        OverflowError: For an integer that does not fit.
    """
    if NUMPY_WRAPS and np.dtype(dtype).kind in "iu" and values:
        limits = np.iinfo(dtype)
        if min(values) < limits.min or max(values) > limits.max:
            raise OverflowError(f"Expected integers that fit into {np.dtype(dtype)}")
    return np.array(values, dtype)


def _strings(values, shape, size):
    if len(values) != size:
        raise _mismatch(shape, f"{len(values)} values")
    return string_array(values).reshape(shape)


def _mismatch(shape, received):
    return invalid(f"Expected values for the shape {shape}. Received: {received}")


def string_array(values):
    """A vector of bytes, of any lengths."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


def proto_of(array):
    """The `TensorProto` of an array, with the fields that TensorFlow Serving uses."""
    kind = (
        types_pb2.DT_STRING
        if array.dtype.hasobject
        else tf.dtypes.as_dtype(array.dtype).as_datatype_enum
    )
    if kind not in FIELDS:
        raise ServingError("UNIMPLEMENTED", f"Outputs of type {array.dtype}")
    tensor = tensor_pb2.TensorProto()
    if kind in PACKED:
        data = array.tobytes()
        tensor.MergeFromString(PACKED[kind] + _varint(len(data)) + data)
    elif FIELDS[kind] == "half_val":
        tensor.half_val.extend(array.view("uint16").ravel().tolist())
    else:
        getattr(tensor, FIELDS[kind]).extend(array.ravel().tolist())
    tensor.dtype = kind
    for size in array.shape:
        tensor.tensor_shape.dim.add().size = size
    return tensor


def _varint(number):
    data = bytearray()
    while number > 0x7F:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    data.append(number)
    return bytes(data)
