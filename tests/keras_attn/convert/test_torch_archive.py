"""Compared with what was written, and with `torch.load` where torch is installed."""

import contextlib
import os
import pickle
import zipfile

import numpy as np
import pytest

from keras_attn.convert.checkpoint import CheckpointError
from keras_attn.convert.torch_archive import read_torch_archive
from tests.keras_attn.convert.archives import (
    Call,
    Global,
    TorchArchive,
    pickled,
    save_state_dict,
    view,
)

DTYPES = "float64 float32 float16 int64 int32 int16 int8 uint8 bool".split()


def numbers(shape, dtype="float32", seed=0):
    values = np.random.default_rng(seed).uniform(-99, 99, shape)
    return (values > 0) if dtype == "bool" else values.astype(dtype)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth"


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_of_every_type(path, dtype):
    wanted = {"a.weight": numbers((2, 3, 5), dtype), "step": numbers((), dtype)}
    found = read_torch_archive(save_state_dict(path, wanted))
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        assert not found[name].flags.writeable
        np.testing.assert_array_equal(found[name], array)


def test_bfloat16_comes_as_float32(path):
    wanted = np.array([1.0, -2.5, 3.140625, 1e38, np.inf, 0.0], "float32")
    upper_halves = (wanted.view("uint32") >> 16).astype("uint16")
    archive = TorchArchive()
    storage = archive.storage(upper_halves, "bfloat16")
    archive.save(path, {"a": view(storage, 1, (5,), (1,))})
    found = read_torch_archive(path)["a"]
    assert found.dtype == "float32"
    exact = (upper_halves.astype("uint32") << 16).view("float32")[1:]
    np.testing.assert_array_equal(found, exact)
    np.testing.assert_allclose(found, wanted[1:], rtol=2**-8)


def test_views_share_their_storage(path):
    values = numbers((4, 6))
    archive = TorchArchive()
    storage = archive.storage(values)
    content = {
        "all": view(storage, 0, (4, 6), (6, 1)),
        "transposed": view(storage, 0, (6, 4), (1, 6)),
        "part": view(storage, 8, (2, 3), (6, 1)),
        "repeated": view(storage, 1, (3, 2), (0, 2)),
        "any stride": view(storage, 5, (1,), (10**9,)),
        "empty": view(storage, 0, (0, 3), (3, 1)),
    }
    found = read_torch_archive(archive.save(path, content))
    np.testing.assert_array_equal(found["all"], values)
    np.testing.assert_array_equal(found["transposed"], values.T)
    np.testing.assert_array_equal(found["part"], values[1:3, 2:5])
    row = values.ravel()[[1, 3]]
    np.testing.assert_array_equal(found["repeated"], [row, row, row])
    np.testing.assert_array_equal(found["any stride"], values.ravel()[5:6])
    assert found["empty"].shape == (0, 3)
    assert np.shares_memory(found["all"], found["part"])


def test_containers_numbers_and_parameters(path):
    archive = TorchArchive()
    weight = numbers((3, 2))
    hooks = Call(Global("collections", "OrderedDict"), ())
    rebuild = Global("torch._utils", "_rebuild_parameter")
    content = {
        "epoch": 7,
        "accuracy": 0.125,
        "best": True,
        "nothing": None,
        "betas": (0.9, -1),
        "groups": [{"lr": 1e-3, "params": [0, 1]}],
        "state": {0: {"momentum_buffer": archive.tensor(weight)}},
        "size": Call(Global("torch", "Size"), ((2, 3),)),
        "w": Call(rebuild, (archive.tensor(weight), True, hooks)),
    }
    found = read_torch_archive(archive.save(path, content))
    np.testing.assert_array_equal(found.pop("w"), weight)
    np.testing.assert_array_equal(found.pop("state")[0]["momentum_buffer"], weight)
    assert found.pop("size") == (2, 3)
    for name, value in found.items():
        assert value == content[name] and type(value) is type(content[name])


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_of_pickle(path, protocol):
    content = {"a": [1, -2.5, "ü", (True, None), {2**70: ()}], "b": {"c": 300}}
    content["d"] = content["b"]
    TorchArchive().save(path, pickle.dumps(content, protocol))
    found = read_torch_archive(path)
    assert found == content
    assert found["d"] is found["b"]


def test_numbers_of_a_big_endian_machine(path):
    archive = TorchArchive()
    values = numbers((5,))
    storage = archive.storage(values.astype(">f4"), "float32")
    archive.save(path, {"a": view(storage, 0, (5,), (1,))})
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("archive/byteorder", "big")
    np.testing.assert_array_equal(read_torch_archive(path)["a"], values)


# ---- what is refused ---------------------------------------------------------------


class Malicious:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("make", [os.mkdir, os.system, eval], ids=lambda f: f.__name__)
def test_refuses_calls_and_runs_none(path, make, protocol):
    trace = path.parent / "trace"
    argument = {
        os.mkdir: str(trace),
        os.system: f"mkdir {trace}",
        eval: f"__import__('os').mkdir({str(trace)!r})",
    }[make]
    content = {"a": 1, "b": Malicious(make, argument)}
    TorchArchive().save(path, pickle.dumps(content, protocol))
    with pytest.raises(CheckpointError, match=rf"refers to '\w+\.{make.__name__}'"):
        read_torch_archive(path)
    assert not trace.exists()
    # The file does what it should not when it is unpickled.
    with zipfile.ZipFile(path) as archive:
        pickle.loads(archive.read("archive/data.pkl"))
    assert trace.exists()


@pytest.mark.parametrize(
    "program, name",
    [
        (b"(Vtrue\nios\nsystem\n.", "os.system"),
        (b"(cos\nsystem\nX\x04\0\0\0trueo.", "os.system"),
        (pickled(Global("argparse", "Namespace")), "argparse.Namespace"),
        (pickled(Global("torch", "FloatStorage.os.system")), "FloatStorage.os.system"),
        (pickled(Global("torch.storage", "_load_from_bytes")), "_load_from_bytes"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x04C\x01a.", "SHORT_BINBYTES"),
        (b"\x80\x02X\x01\0\0\0a}\x81.", "NEWOBJ"),
    ],
)
def test_refuses_every_other_way_to_an_object(path, program, name):
    TorchArchive().save(path, program)
    with pytest.raises(CheckpointError, match=name):
        read_torch_archive(path)


REBUILD = Global("torch._utils", "_rebuild_tensor_v2")


@pytest.mark.parametrize(
    "offset, shape, strides",
    [
        (0, (25,), (1,)),
        (1, (4, 6), (6, 1)),
        (-1, (2,), (1,)),
        (3, (2,), (-1,)),
        (0, (-2,), (1,)),
        (0, (2, 2), (1,)),
        (0, (2.0,), (1,)),
        (2**62, (2,), (1,)),
        (0, (2,), (2**62,)),
        (0, (2**62, 2**62), (0, 0)),
        (True, (2,), (1,)),
    ],
)
def test_refuses_views_outside_their_storage(path, offset, shape, strides):
    archive = TorchArchive()
    storage = archive.storage(numbers((4, 6)))
    archive.save(path, {"a": view(storage, offset, shape, strides)})
    with pytest.raises(CheckpointError, match="damaged"):
        read_torch_archive(path)


@pytest.mark.parametrize(
    "program",
    [
        b"",
        b"\x80\x02}",
        b"\x80\x02.",
        b"\x80\x02NN.",
        b"\x80\x020.",
        b"\x80\x02t.",
        b"\x80\x02h\x07.",
        b"\x80\x02}X\x01\0\0\0as.",
        b"\x80\x02}](u.",
        b"\x80\x02}(]Nu.",
        b"\x80\x02}(Nu.",
        b"\x80\x02NQ.",
        b"\x80\x02]}b.",
        b"\x80\x02N)R.",
        b"\x80\x02X\xff\xff\xff\x7fa.",
        pickled(Call(REBUILD, ())),
        pickled(Call(REBUILD, (1, 0, (2,), (1,)))),
        pickled(Call(Global("torch", "FloatStorage"), (3,))),
        pickled({"a": "b"}).replace(b"}", b"]"),
        b"\x80\x02" + b")" + 10**5 * b"\x85" + b"}\x86(t.",
    ],
)
def test_refuses_programs_that_make_no_sense(path, program):
    TorchArchive().save(path, program)
    with pytest.raises(CheckpointError):
        read_torch_archive(path)


def test_refuses_archives_that_torch_does_not_write(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match="without the one data.pkl"):
        read_torch_archive(path)
    save = TorchArchive().save
    save(path, {"a": 1}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="compressed member"):
        read_torch_archive(path)
    archive = TorchArchive()
    archive.save(path, {"a": view(archive.storage(numbers(4), count=5), 0, (), ())})
    with pytest.raises(CheckpointError, match="16 bytes, not 20"):
        read_torch_archive(path)
    archive.storages.clear()
    archive.save(path, {"a": view(TorchArchive().storage(numbers(4)), 0, (), ())})
    with pytest.raises(CheckpointError, match="damaged"):
        read_torch_archive(path)


def test_damage_anywhere_is_one_kind_of_error(path):
    """Truncations and changed bytes: read or refused, nothing else."""
    save_state_dict(path, {"a": numbers((2, 3)), "b": numbers((2,))})
    content = path.read_bytes()
    for length in range(4, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            read_torch_archive(path)
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        changed = bytearray(content)
        changed[generator.integers(len(content))] ^= generator.integers(1, 256)
        path.write_bytes(changed)
        try:
            read_torch_archive(path)
        except CheckpointError:
            refused += 1
    assert refused > 100
    program = pickled({"a": [1, "b", (2.0, None)], "c": {}})
    for _ in range(200):
        changed = bytearray(program)
        changed[generator.integers(len(program))] = generator.integers(256)
        TorchArchive().save(path, bytes(changed))
        with contextlib.suppress(CheckpointError):
            read_torch_archive(path)


# ---- against torch -----------------------------------------------------------------


def torch_content(torch):
    generator = torch.Generator().manual_seed(0)
    base = torch.randn((4, 6), generator=generator)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    content = {
        "module": module.state_dict(),
        "optimizer": torch.optim.SGD(module.parameters(), 0.1).state_dict(),
        "parameter": torch.nn.Parameter(base[1]),
        "views": [base, base.T, base[1:3, 2:5], base[:, :1].expand(4, 3), base[0, 0]],
        "empty": torch.zeros((0, 3)),
        "epoch": 3,
        "acc": torch.tensor(0.5),
        "size": base.size(),
    }
    for name in [*DTYPES, "bfloat16", "uint16", "uint32", "uint64"]:
        content[name] = (base.abs() * 9).to(getattr(torch, name))
    return content


def assert_same(found, wanted, torch):
    if isinstance(wanted, torch.Tensor):
        wanted = wanted.detach()
        wanted = wanted.float() if wanted.dtype == torch.bfloat16 else wanted
        assert found.dtype == wanted.numpy().dtype and found.shape == wanted.shape
        np.testing.assert_array_equal(found, wanted.numpy())
    elif isinstance(wanted, dict):
        assert list(found) == list(wanted)
        for key in wanted:
            assert_same(found[key], wanted[key], torch)
    elif isinstance(wanted, (list, tuple)):
        assert isinstance(wanted, type(found)) and len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other, torch)
    else:
        assert found == wanted and type(found) is type(wanted)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_reads_what_torch_writes(path, protocol):
    torch = pytest.importorskip("torch")
    content = torch_content(torch)
    torch.save(content, path)
    wanted = torch.load(path, weights_only=True, map_location="cpu")
    torch.save(content, path, pickle_protocol=protocol)
    assert_same(read_torch_archive(path), wanted, torch)


def test_refuses_a_whole_module_of_torch(path):
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(2, 3), path)
    with pytest.raises(CheckpointError, match="torch.nn.modules.linear.Linear"):
        read_torch_archive(path)
