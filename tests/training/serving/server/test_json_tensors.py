import base64
import json

import numpy as np
import pytest
import tensorflow as tf

from keras_attn.training.serving.server import json_tensors
from keras_attn.training.serving.server.errors import ServingError
from keras_attn.training.serving.server.loaded_model import Signature, TensorSpec


def signature(**dtypes):
    specs = {
        name: TensorSpec(tf.as_dtype(dtype), None) for name, dtype in dtypes.items()
    }
    return Signature("any", specs, {})


SENSORS = signature(tag="string", signal="int32", sensor="float32")
ROWS = b"""{"instances": [
    {"tag": "foo", "signal": [1, 2, 3, 4, 5], "sensor": [[1, 2], [3, 4]]},
    {"tag": "bar", "signal": [3, 4, 1, 2, 5], "sensor": [[4, 5], [6, 8]]}
]}"""
COLUMNS = b"""{"inputs": {
    "tag": ["foo", "bar"],
    "signal": [[1, 2, 3, 4, 5], [3, 4, 1, 2, 5]],
    "sensor": [[[1, 2], [3, 4]], [[4, 5], [6, 8]]]
}}"""


def read(body, wanted):
    return json_tensors.inputs_of(json_tensors.parse(body), wanted)


def written(outputs, rows):
    return json.loads(json_tensors.answer(outputs, rows))


@pytest.mark.parametrize("body, rows", [(ROWS, True), (COLUMNS, False)])
def test_the_documented_example_in_both_formats(body, rows):
    inputs, by_row = read(body, SENSORS)
    assert by_row == rows
    assert inputs["tag"].tolist() == [b"foo", b"bar"]
    assert inputs["signal"].dtype == "int32" and inputs["signal"].shape == (2, 5)
    assert inputs["signal"].tolist()[1] == [3, 4, 1, 2, 5]
    assert inputs["sensor"].dtype == "float32"
    assert inputs["sensor"].tolist() == [[[1, 2], [3, 4]], [[4, 5], [6, 8]]]


def test_a_single_input_needs_no_name():
    inputs, _ = read(b'{"instances": ["foo", "bar", "baz"]}', signature(x="string"))
    assert inputs["x"].tolist() == [b"foo", b"bar", b"baz"]
    inputs, _ = read(b'{"instances": [[[1, 2]], [[3, 4]]]}', signature(x="float32"))
    assert inputs["x"].shape == (2, 1, 2)
    inputs, _ = read(b'{"inputs": 3}', signature(x="int8"))
    assert inputs["x"].shape == () and inputs["x"] == 3
    inputs, _ = read(b'{"instances": [{"x": 1}]}', signature(x="float64"))
    assert inputs["x"].tolist() == [1.0]


def test_binary_values():
    data = bytes(range(256))
    text = base64.b64encode(data).decode()
    body = json.dumps({"instances": [{"b64": text}, {"b64": ""}]}).encode()
    inputs, _ = read(body, signature(x="string"))
    assert inputs["x"].tolist() == [data, b""]
    body = json.dumps({"inputs": {"x": {"b64": text}}}).encode()
    assert read(body, signature(x="string"))[0]["x"].item() == data


def test_special_numbers():
    inputs, _ = read(b'{"inputs": [1.5, NaN, -Infinity, 3e2]}', signature(x="float32"))
    np.testing.assert_array_equal(inputs["x"], [1.5, np.nan, -np.inf, 300])
    body = json_tensors.answer({"x": inputs["x"], "n": np.array([1, 2])}, False)
    assert b"[1.5, NaN, -Infinity, 300.0]" in body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b'{"instances": "\xff"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"instances": ' + b"[" * 300 + b"]" * 300 + b"}",
        b"{}",
        b'{"instances": []}',
        b'{"instances": 3}',
        b'{"instances": [1], "inputs": [1]}',
        b'{"instances": [1], "signature_name": 7}',
        b'{"instances": [[1], [1, 2]]}',
        b'{"instances": [[1], 2]}',
        b'{"instances": ["1"]}',
        b'{"instances": [null]}',
        b'{"instances": [true]}',
        b'{"instances": [1e300]}',
        b'{"instances": [1' + b"0" * 400 + b"]}",
        b'{"instances": [{"b64": "AAAA"}]}',
        b'{"instances": [{"y": 1}]}',
        b'{"instances": [{"x": 1}, 2]}',
        b'{"instances": [{"x": 1, "y": 2}]}',
        b'{"inputs": {"y": 1}}',
    ],
)
def test_what_is_no_request_is_refused(body):
    with pytest.raises(ServingError) as caught:
        read(body, signature(x="float32"))
    assert caught.value.http_status == 400


@pytest.mark.parametrize(
    "dtype, value",
    [
        ("int32", "1.5"),
        ("int8", "128"),
        ("uint8", "-1"),
        ("int64", "9223372036854775808"),
        ("bool", "1"),
        ("string", "1"),
        ("string", '{"b64": "?"}'),
        ("string", '{"b64": "A"}'),
        ("string", '{"b64": 3}'),
        ("string", '"\\ud800"'),
    ],
)
def test_values_of_the_wrong_type_are_refused(dtype, value):
    with pytest.raises(ServingError) as caught:
        read(f'{{"inputs": [{value}]}}'.encode(), signature(x=dtype))
    assert caught.value.http_status == 400


def test_a_long_string_among_numbers_takes_no_memory():
    body = json.dumps({"inputs": ["a" * 10**6, *[1] * 10**5]}).encode()
    with pytest.raises(ServingError):
        read(body, signature(x="float32"))


def test_answers():
    y = {"y": np.array([3.5, 4.0, 5.5], "float32")}
    assert written(y, rows=True) == {"predictions": [3.5, 4.0, 5.5]}
    assert written(y, rows=False) == {"outputs": [3.5, 4.0, 5.5]}
    two = {**y, "name": np.array([b"a", b"b", b"c"], object)}
    assert written(two, rows=True)["predictions"][1] == {"y": 4.0, "name": "b"}
    assert written(two, rows=False) == {
        "outputs": {"y": [3.5, 4.0, 5.5], "name": ["a", "b", "c"]}
    }


def test_floats_have_no_more_digits_than_they_need():
    values = np.array([[0.1, 0.2], [1 / 3, 1e-20]], "float32")
    body = json_tensors.answer({"y": values}, rows=True)
    assert b"0.2," in body.replace(b"]", b",") and b"0.2000" not in body
    np.testing.assert_array_equal(
        np.array(json.loads(body)["predictions"], "float32"), values
    )
    body = json_tensors.answer({"y": np.array([0.2, np.nan], "float32")}, rows=True)
    assert body == b'{"predictions": [0.2, NaN]}'


def test_bytes_by_name_or_because_they_are_no_text():
    raw = np.array([b"\xff\0"], object)
    coded = {"b64": base64.b64encode(b"\xff\0").decode()}
    assert written({"image_bytes": raw}, rows=True) == {"predictions": [coded]}
    assert written({"name": raw}, rows=True) == {"predictions": [coded]}
    plain = np.array([b"text"], object)
    assert written({"text_bytes": plain}, rows=False) == {
        "outputs": [{"b64": base64.b64encode(b"text").decode()}]
    }


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8", "uint64", "bool"])
def test_outputs_of_any_type(dtype):
    values = np.array([0, 1], tf.as_dtype(dtype).as_numpy_dtype)
    assert written({"y": values}, rows=True) == {"predictions": [0, 1]}
    assert written({"y": values[1]}, rows=False) == {"outputs": 1}


def test_rows_need_one_batch_size():
    outputs = {"a": np.zeros(2), "b": np.zeros(3)}
    with pytest.raises(ServingError, match="inputs"):
        json_tensors.answer(outputs, rows=True)
    assert written(outputs, rows=False) == {"outputs": {"a": [0] * 2, "b": [0] * 3}}
