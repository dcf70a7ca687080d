import numpy as np
import pytest

from keras_attn.convert.checkpoint import CheckpointError
from keras_attn.convert.state_dict import read_state_dict, strip_prefix
from tests.keras_attn.convert.archives import (
    Global,
    TorchArchive,
    entry,
    save_safetensors,
    save_state_dict,
)

WEIGHTS = {
    "fc.weight": np.arange(6, dtype="float32").reshape(2, 3),
    "fc.bias": np.array([0.5, -2], "float32"),
}


def assert_weights(found, factor=1):
    assert list(found) == list(WEIGHTS)
    for name, value in WEIGHTS.items():
        np.testing.assert_array_equal(found[name], factor * value)


@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.pth.tar", "a", "b.safetensors"])
def test_reads_a_plain_state_dict_whatever_its_name(tmp_path, name):
    assert_weights(read_state_dict(save_state_dict(tmp_path / name, WEIGHTS)))
    assert_weights(read_state_dict(str(tmp_path / name)))


@pytest.mark.parametrize("name", ["a.safetensors", "model"])
def test_reads_safetensors_whatever_its_name(tmp_path, name):
    header, data = {}, b""
    for key, value in WEIGHTS.items():
        header[key] = entry(len(data), len(data) + value.nbytes, "F32", value.shape)
        data += value.tobytes()
    path = save_safetensors(tmp_path / name, header, data)
    assert_weights(read_state_dict(path))


def training_checkpoint(path, *sets, **others):
    archive = TorchArchive()
    content = {"epoch": 99, "acc": archive.tensor(np.float32(0.5)), **others}
    for factor, name in enumerate(sets, 1):
        scaled = {key: factor * value for key, value in WEIGHTS.items()}
        content[name] = archive.state_dict(scaled)
    momentum = {"momentum_buffer": archive.tensor(WEIGHTS["fc.bias"])}
    content["optimizer"] = {
        "state": {0: momentum},
        "param_groups": [{"lr": 0.1, "nesterov": True, "params": [0]}],
    }
    return archive.save(path, content)


@pytest.mark.parametrize("name", ["state_dict", "net", "model", "anything"])
def test_unwraps_the_one_entry_that_holds_weights(tmp_path, name):
    path = training_checkpoint(tmp_path / "a.pth", name)
    assert_weights(read_state_dict(path))
    assert_weights(read_state_dict(path, key=name))


def test_asks_which_of_several_entries_is_meant(tmp_path):
    path = training_checkpoint(tmp_path / "a.pth", "student", "teacher")
    assert_weights(read_state_dict(path, key="teacher"), factor=2)
    with pytest.raises(CheckpointError, match=r"key=: \['student', 'teacher'\]"):
        read_state_dict(path)
    with pytest.raises(CheckpointError, match="no entry 'model' with tensors only"):
        read_state_dict(path, key="model")
    with pytest.raises(CheckpointError, match="no entry 'optimizer'"):
        read_state_dict(path, key="optimizer")


@pytest.mark.parametrize("content", [{}, [1, 2], {"epoch": 3}, {"a": {}}, "text"])
def test_refuses_files_without_weights(tmp_path, content):
    path = TorchArchive().save(tmp_path / "a.pth", content)
    with pytest.raises(CheckpointError, match="no dictionary of tensors"):
        read_state_dict(path)


def test_names_the_file_and_what_it_should_not_hold(tmp_path):
    arguments = Global("argparse", "Namespace")
    path = training_checkpoint(tmp_path / "a.pth", "net", args=arguments)
    with pytest.raises(ValueError, match="a.pth, which .*'argparse.Namespace'.*save"):
        read_state_dict(path)


@pytest.mark.parametrize(
    "start, message",
    [
        # The magic number of the first format, as a pickle.
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.", "PyTorch 1.6"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "neither"),
        (b"", "neither, or truncated"),
        (b"PK\x03\x04", "truncated"),
    ],
)
def test_refuses_other_formats(tmp_path, start, message):
    path = tmp_path / "weights.pth"
    path.write_bytes(start)
    with pytest.raises(CheckpointError, match=f"weights.pth, which .*{message}"):
        read_state_dict(path)


def test_the_old_format_of_torch_is_named(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "a.pth"
    weights = {name: torch.tensor(value) for name, value in WEIGHTS.items()}
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="PyTorch 1.6.*torch.save"):
        read_state_dict(path)
    # The advice of the message works.
    torch.save(torch.load(path, weights_only=True), path)
    assert_weights(read_state_dict(path))


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        read_state_dict(tmp_path / "nowhere.pth")


def test_strip_prefix():
    wrapped = {f"module.{name}": value for name, value in WEIGHTS.items()}
    assert_weights(strip_prefix(wrapped))
    assert_weights(strip_prefix(WEIGHTS))
    assert strip_prefix({"a.module.b": 1}) == {"a.module.b": 1}
    teacher = {"backbone.norm": 1, "head": 2}
    assert strip_prefix(teacher, "backbone.") == {"norm": 1, "head": 2}
    with pytest.raises(CheckpointError, match=r"\['a'\] with and without"):
        strip_prefix({"a": 1, "module.a": 2})
