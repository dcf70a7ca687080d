"""Compared with what was pickled; never with `pickle.load`, which would run it."""

import contextlib
import os
import pickle
import pickletools

import numpy as np
import pytest

from keras_attn.convert.checkpoint import CheckpointError
from keras_attn.convert.pickled_data import read_pickled_data

DTYPES = "float64 float32 float16 int64 int32 int16 int8 uint64 uint8 bool".split()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "truth.pkl"


def written(path, content, protocol=None):
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_of_pickle(path, protocol):
    boxes = np.array([[1.5, 2.0], [3.0, 4.25], [0.0, -1.0]])
    content = {
        "names": ["a", "ü", ("b", None, True)],
        "numbers": [1, -2.5, 2**70, {3: b"raw \xff", 4: b""}],
        "boxes": boxes,
        "columns": np.asfortranarray(boxes),
        "big endian": boxes.astype(">f4"),
        "none": np.zeros((0, 3), "int32"),
        "scalars": [np.int64(7), np.float32(0.5), np.bool_(True)],
    }
    content["boxes again"] = boxes
    found = read_pickled_data(written(path, content, protocol))
    assert list(found) == list(content)
    assert found["names"] == content["names"]
    assert found["numbers"] == content["numbers"]
    assert found["scalars"] == content["scalars"]
    assert found["boxes"] is found["boxes again"]
    for name in ("boxes", "columns", "big endian", "none"):
        np.testing.assert_array_equal(found[name], content[name])
        assert found[name].shape == content[name].shape
        assert found[name].dtype.newbyteorder("=") == content[name].dtype.newbyteorder(
            "="
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_of_every_type(path, dtype):
    content = np.arange(6).reshape(2, 3).astype(dtype)
    found = read_pickled_data(written(path, [content, content[1:]]))
    np.testing.assert_array_equal(found[0], content)
    np.testing.assert_array_equal(found[1], content[1:])
    assert found[0].dtype == content.dtype


def test_arrays_of_python_2_whose_strings_are_bytes(path):
    # cnumpy.core.multiarray\n_reconstruct ..., as Python 2 wrote it with protocol 2.
    program = (
        b"\x80\x02}U\x04easyq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02"
        b"cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87Rq\x04(K\x01K\x02\x85cnumpy\ndtype\n"
        b"q\x05U\x02i2K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        b"K\x00tb\x89U\x04\x07\x00\xfe\xfftbs."
    )
    path.write_bytes(program)
    found = read_pickled_data(path)
    np.testing.assert_array_equal(found["easy"], np.array([7, -2], "int16"))


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_runs_nothing(path, tmp_path, protocol):
    made = tmp_path / "made"
    written(path, {"easy": [Evil(made)]}, protocol)
    with pytest.raises(CheckpointError, match="refers to 'posix.mkdir'.*Nothing.*run"):
        read_pickled_data(path)
    assert not made.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({1, 2}, "holds more than lists"),
        (np.array(["a"], object), "arrays of 'O8', which are no numbers"),
        (np.array(["abc"]), "arrays of 'U3', which are no numbers"),
        (np.datetime64("2020-01-01"), "arrays of 'M8'"),
        (1 + 2j, "refers to 'builtins.complex'"),
        ({(1, 2): 3}, "keys that are neither strings nor integers"),
    ],
)
def test_refuses_what_is_no_plain_data(path, content, message):
    with pytest.raises(CheckpointError, match=message):
        read_pickled_data(written(path, content, 4))


@pytest.fixture
def program():
    content = {"names": ["a", "b"], "easy": np.arange(3, dtype="int16"), "x": (1.5,)}
    return pickle.dumps(content, 2)


def test_every_truncation_is_an_error(path, program):
    for length in range(len(program)):
        path.write_bytes(program[:length])
        with pytest.raises(CheckpointError, match="truth.pkl, which"):
            read_pickled_data(path)


def test_a_flipped_byte_is_an_error_or_other_data(path, program):
    for i in range(len(program)):
        path.write_bytes(program[:i] + bytes([program[i] ^ 0x55]) + program[i + 1 :])
        # Any other exception fails the test.
        with contextlib.suppress(CheckpointError):
            read_pickled_data(path)


def test_instructions_out_of_order_are_an_error(path):
    # A build of nothing, a call of what is no function, a number type never finished.
    for program in (b"Nb.", b"(K\x01K\x02R.", b"}K\x01b.", b"K\x01\x85."[:3]):
        path.write_bytes(program)
        with pytest.raises(CheckpointError, match="truth.pkl, which"):
            read_pickled_data(path)
    unfinished = (
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(U\x02i2tRU\x02\x01\x00tR."
    )
    assert [x[0].name for x in pickletools.genops(unfinished)].count("REDUCE") == 2
    path.write_bytes(unfinished)
    with pytest.raises(CheckpointError, match="an array without a type"):
        read_pickled_data(path)


def test_a_missing_file(path):
    with pytest.raises(FileNotFoundError):
        read_pickled_data(path)
