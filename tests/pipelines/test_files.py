"""Files that are complete or not there, digests, and what counts as damage."""

import errno
import hashlib
import json
import os
import zipfile

import numpy as np
import pytest

from keras_attn.pipelines.files import (
    DAMAGE,
    copy_file,
    digest_of,
    partial_path,
    save_then_rename,
    write_text,
    write_then_rename,
)


def test_write_then_rename_replaces_a_file_and_a_stale_partial_one(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    partial_path(path).write_bytes(b"much longer than what comes now")
    with write_then_rename(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(KeyboardInterrupt), write_then_rename(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["file"]
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        with write_then_rename(path) as file:
            file.write(b"half")
    assert os.listdir(tmp_path) == ["file"]
    assert path.read_bytes() == b"old"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_disk_that_is_full_when_buffers_are_written(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    partial_path(path).symlink_to("/dev/full")
    with pytest.raises(OSError) as caught, write_then_rename(path) as file:
        file.write(b"half")
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == ["file"]
    assert path.read_bytes() == b"old"


def test_two_writers_do_not_meet(tmp_path):
    path = tmp_path / "file"
    with write_then_rename(path, "a-1") as one, write_then_rename(path, "b-1") as other:
        one.write(b"one, longer")
        other.write(b"other")
    assert path.read_bytes() == b"one, longer"
    assert os.listdir(tmp_path) == ["file"]
    assert partial_path(path).name == ".file.partial"
    assert partial_path(path, "a-1").name == ".file.a-1.partial"


def test_paths_texts_and_copies_appear_when_complete(tmp_path):
    path = tmp_path / "model.keras"
    with pytest.raises(KeyboardInterrupt), save_then_rename(path) as temporary:
        assert temporary.suffix == ".keras"
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []
    with save_then_rename(path) as temporary:
        temporary.write_bytes(b"whole")
        assert not path.exists()
    copy_file(path, tmp_path / "copy")
    write_text(tmp_path / "text", "é")
    assert (tmp_path / "copy").read_bytes() == path.read_bytes() == b"whole"
    assert (tmp_path / "text").read_bytes() == "é".encode()
    assert sorted(os.listdir(tmp_path)) == ["copy", "model.keras", "text"]


def test_a_digest_is_sha256_of_contents_shapes_and_dtypes(tmp_path):
    array = np.arange(12, dtype="float32").reshape(4, 3)
    (tmp_path / "file").write_bytes(b"of a file")
    wanted = hashlib.sha256("té".encode())
    wanted.update(b"(3, 4) float32" + array.T.tobytes())
    wanted.update(b"() int64" + np.int64(7).tobytes() + b"of a file" + b"raw")
    found = digest_of("té", array.T, np.int64(7), tmp_path / "file", b"raw")
    assert found == wanted.hexdigest()
    others = [array, array.T, array.ravel(), array.view("int32"), array[:0], "", b"a"]
    assert len({digest_of(other) for other in others}) == len(others)


def test_damage_is_what_readers_of_damaged_files_raise(tmp_path):
    path = tmp_path / "arrays.npz"
    np.savez_compressed(path, a=np.arange(1000), b=np.zeros(5))
    good = path.read_bytes()

    def read():
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in ("a", "b")}

    method = good.index(b"PK\x01\x02") + 10
    damaged = [b"", b"PK\x03\x04", good[:-30], good[:90] + b"\xff" * 9 + good[99:]]
    # An unknown way to compress.
    damaged.append(good[:8] + b"\x63" + good[9:method] + b"\x63" + good[method + 1 :])
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(DAMAGE):
            read()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"no array")
    with pytest.raises(DAMAGE):
        read()
    for text in ("{", "[" * 100_000, "\udc80", "[]", "{}"):
        with pytest.raises(DAMAGE):
            json.loads(text.encode("utf-8", "surrogateescape"))["format"]
