"""Compared with files written here by the format's description, byte by byte."""

import numpy as np
import pytest

from keras_attn.convert.checkpoint import CheckpointError
from keras_attn.convert.safetensors_file import CODES, read_safetensors
from tests.keras_attn.convert.archives import entry, save_safetensors

VALUES = np.arange(-3, 9).reshape(3, 4)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.safetensors"


def test_tensors_of_every_type(path):
    header, data, wanted = {"__metadata__": {"format": "pt"}}, b"", {}
    for code, dtype in CODES.items():
        if code == "BF16":
            # All of these have few enough digits for bfloat16.
            raw = (VALUES.astype("float32").view("uint32") >> 16).astype("<u2")
            wanted[code] = VALUES.astype("float32")
        else:
            wanted[code] = VALUES.astype(dtype)
            raw = wanted[code].astype(wanted[code].dtype.newbyteorder("<"))
        header[code] = entry(len(data), len(data) + raw.nbytes, code)
        data += raw.tobytes()
    header["scalar"] = entry(0, 8, "F64", ())
    wanted["scalar"] = np.array(-3.0)
    header["empty"] = entry(5, 5, "I8", (0, 3))
    wanted["empty"] = np.zeros((0, 3), "int8")
    found = read_safetensors(save_safetensors(path, header, data))
    assert sorted(found) == sorted(wanted)
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype
        assert not found[name].flags.writeable
        np.testing.assert_array_equal(found[name], value)


def test_reads_what_the_library_writes(path):
    library = pytest.importorskip("safetensors.numpy")
    wanted = {name: VALUES.astype(name) for name in ("float32", "float16", "int64")}
    library.save_file(wanted, path)
    found = read_safetensors(path)
    assert sorted(found) == sorted(wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize(
    "header, message",
    [
        ({"a": entry(0, 48, "F8_E4M3")}, "type 'F8_E4M3'"),
        ({"a": entry(0, 48, ["F32"])}, "type"),
        ({"a": entry(0, 52)}, "truncated"),
        ({"a": entry(4, 52, shape=(3, 4))}, "truncated"),
        ({"a": entry(48, 0)}, "truncated"),
        ({"a": entry(0, 44)}, "truncated"),
        ({"a": entry(0, 48, shape=(3, 5))}, "truncated"),
        ({"a": entry(-48, 0)}, "sizes"),
        ({"a": entry(0, 48, shape=(-3, -4))}, "sizes"),
        ({"a": entry(0, 48, shape=(3.0, 4))}, "sizes"),
        ({"a": entry(0, 0, shape=(0, 2**70))}, "damaged"),
        ({"a": entry(0, 4, shape=100 * [1])}, "damaged"),
        ({"a": [1, 2]}, "no description of 'a'"),
        ({"a": {"dtype": "F32"}}, "no description of 'a'"),
        ({"a": {"dtype": "F32", "shape": 3, "data_offsets": [0, 48]}}, "no descr"),
        ([1], "no JSON object"),
        (b"{", "no JSON"),
        (b"\xff{", "no JSON"),
        (b"[" * 100_000, "no JSON"),
    ],
)
def test_refuses_headers_that_do_not_fit_the_data(path, header, message):
    save_safetensors(path, header, bytes(48))
    with pytest.raises(CheckpointError, match=message):
        read_safetensors(path)


def test_every_truncation_is_an_error(path):
    save_safetensors(path, {"a": entry(0, 48)}, bytes(48))
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="truncated|damaged"):
            read_safetensors(path)
