import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

from keras_attn.training.serving.server.errors import ServingError
from keras_attn.training.serving.server.tensors import array_of, proto_of

DTYPES = """float16 bfloat16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32
uint64 bool""".split()
LIMIT = 10**6


def example(dtype, shape=(2, 3, 5)):
    values = np.random.default_rng(0).integers(0, 100, shape)
    return values.astype(tf.dtypes.as_dtype(dtype).as_numpy_dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_reads_what_tensorflow_writes(dtype):
    array = example(dtype)
    read = array_of(tf.make_tensor_proto(array), LIMIT)
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3, 5), (300,), (), (0, 3)])
def test_what_it_writes_tensorflow_reads(dtype, shape):
    array = example(dtype, shape)
    tensor = proto_of(array)
    assert not tensor.tensor_content
    read = tf.make_ndarray(tensor)
    assert read.dtype == array.dtype and read.shape == array.shape
    np.testing.assert_array_equal(read, array)
    np.testing.assert_array_equal(array_of(tensor, LIMIT), array)


def test_floats_are_in_the_field_that_tensorflow_serving_uses():
    tensor = proto_of(np.array([0.5, np.nan, -np.inf], "float32"))
    np.testing.assert_array_equal(tensor.float_val, [0.5, np.nan, -np.inf])


def test_strings():
    array = np.array([[b"a\0", b""], [b"\xff", b"longer"]], object)
    tensor = proto_of(array)
    np.testing.assert_array_equal(tf.make_ndarray(tensor), array)
    np.testing.assert_array_equal(array_of(tensor, LIMIT), array)
    assert list(array_of(tensor, LIMIT).flat) == [b"a\0", b"", b"\xff", b"longer"]


def test_one_value_stands_for_all():
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[7])
    for size in (2, 3):
        tensor.tensor_shape.dim.add().size = size
    np.testing.assert_array_equal(array_of(tensor, LIMIT), np.full((2, 3), 7))


@pytest.mark.parametrize(
    "changes, shape",
    [
        ({"float_val": [1]}, [2**40]),
        ({"float_val": [1]}, [2**32, 2**32]),
        ({"float_val": [1]}, [-1]),
        ({"float_val": [1, 2]}, [3]),
        ({"float_val": []}, [3]),
        ({"tensor_content": bytes(7)}, [2]),
        ({"float_val": [1]}, [1] * 40),
        ({"dtype": types_pb2.DT_STRING, "string_val": [b"a"]}, [2**40]),
        ({"dtype": types_pb2.DT_UINT8, "int_val": [300]}, [1]),
        ({"dtype": types_pb2.DT_VARIANT}, []),
        ({"dtype": types_pb2.DT_COMPLEX64, "tensor_content": bytes(8)}, [1]),
        ({"dtype": types_pb2.DT_INVALID}, []),
    ],
)
def test_hostile_tensors(changes, shape):
    tensor = tensor_pb2.TensorProto(**{"dtype": types_pb2.DT_FLOAT, **changes})
    for size in shape:
        tensor.tensor_shape.dim.add().size = size
    with pytest.raises(ServingError):
        array_of(tensor, LIMIT)
