"""Folders, tar archives and hand-written CIFAR records."""

import io
import os
import re
import tarfile

import numpy as np
import pytest

from keras_attn.pipelines.sources import archives
from keras_attn.pipelines.sources.archives import has_cifar_files, open_tree, read_cifar


def write_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_and_folder_read_alike(tmp_path, mode):
    files = {"b/two.txt": b"22", "a/one.txt": b"1", "a/.hidden": b"x", "c.txt": b""}
    path = write_tar(tmp_path / "files.tar", files, mode)
    folder = tmp_path / "folder"
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    for tree in (open_tree(path), open_tree(str(folder))):
        assert list(tree.sizes.items()) == [
            ("a/one.txt", 1),
            ("b/two.txt", 2),
            ("c.txt", 0),
        ]
        assert tree.folders == ("a", "b")
        assert tree.read("b/two.txt") == b"22"
    assert open_tree(path).label("a/one.txt") == (str(path), "a/one.txt")
    assert open_tree(folder).label("a/one.txt") == str(folder / "a/one.txt")


def test_links_and_devices_in_a_tar_are_ignored(tmp_path):
    path = write_tar(tmp_path / "links.tar", {"./a/one": b"1"})
    with tarfile.open(path, "a") as archive:
        for name, kind in (("a/link", tarfile.SYMTYPE), ("a/pipe", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    assert list(open_tree(path).sizes) == ["a/one"]


def test_links_in_a_folder_are_followed_and_broken_ones_are_empty(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "one").write_bytes(b"1")
    root = tmp_path / "root"
    root.mkdir()
    os.symlink(tmp_path / "outside", root / "a")
    os.symlink(tmp_path / "nothing", root / "broken")
    assert open_tree(root).sizes == {"a/one": 1, "broken": 0}


def test_a_link_upwards_ends(tmp_path):
    os.symlink(tmp_path, tmp_path / "up")
    (tmp_path / "one").write_bytes(b"1")
    assert len(open_tree(tmp_path).sizes) == archives.MAX_DEPTH


def test_too_large_an_archive_is_to_be_unpacked(tmp_path, monkeypatch):
    files = {"a": bytes(60), "b": bytes(60)}
    path = write_tar(tmp_path / "large.tar.gz", files, "w:gz")
    monkeypatch.setattr(archives, "MAX_ARCHIVE_BYTES", 100)
    with pytest.raises(ValueError, match="Unpack it and pass the folder"):
        open_tree(path)
    monkeypatch.setattr(archives, "MAX_ARCHIVE_BYTES", 120)
    assert len(open_tree(path).sizes) == 2


def test_nothing_is_written(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "files.tar", {"../escape": b"1", "a/one": b"2"})
    monkeypatch.chdir(tmp_path)
    open_tree(path)
    assert os.listdir(tmp_path) == ["files.tar"]
    assert not (tmp_path.parent / "escape").exists()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("fraction", [0.3, 0.6])
def test_truncated_tar(tmp_path, mode, fraction):
    data = np.random.default_rng(0).bytes(20_000)
    path = write_tar(tmp_path / "cut.tar", {"a/one": data}, mode)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(20_000 * fraction)])
    with pytest.raises(ValueError, match=re.escape(str(path))):
        open_tree(path)


def test_a_file_that_is_no_tar(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("nothing of an archive" * 100)
    with pytest.raises(ValueError, match="Expected a folder, a zip or a complete tar"):
        open_tree(path)


def test_missing_path(tmp_path):
    with pytest.raises(FileNotFoundError, match="Expected a folder or an archive"):
        open_tree(tmp_path / "nowhere")


def cifar_files(name, records=3, seed=0):
    """The files of a tiny official archive, with their pixels and labels."""
    generator = np.random.default_rng(seed)
    if name == "cifar10":
        folder, classes, coarse = "cifar-10-batches-bin", 10, b""
        order = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    else:
        folder, classes, coarse = "cifar-100-binary", 100, b"\x13"
        order = ["train.bin", "test.bin"]
    files, images, labels = {}, [], []
    for file in order:
        data = b""
        for _ in range(records):
            image = generator.integers(0, 256, (32, 32, 3), np.uint8)
            label = int(generator.integers(classes))
            data += coarse + bytes([label])
            for channel in range(3):
                for row in range(32):
                    data += bytes(image[row, :, channel].tolist())
            images.append(image)
            labels.append(label)
        files[f"{folder}/{file}"] = data
    return files, np.stack(images), labels


@pytest.mark.parametrize("name, trained", [("cifar10", 15), ("cifar100", 3)])
@pytest.mark.parametrize("unpacked", [False, True])
def test_cifar_records(tmp_path, name, trained, unpacked):
    files, images, labels = cifar_files(name)
    path = write_tar(tmp_path / "archive.tar.gz", files, "w:gz")
    if unpacked:
        with tarfile.open(path) as archive:
            archive.extractall(tmp_path, filter="data")
        path = (tmp_path / next(iter(files))).parent
    tree = open_tree(path)
    assert has_cifar_files(tree)
    fields = read_cifar(tree, name)
    read_images, read_labels = fields["images"], fields["labels"]
    official = fields["official"]
    np.testing.assert_array_equal(read_images, images)
    assert read_images.dtype == np.uint8
    assert read_labels.tolist() == labels
    assert read_labels.dtype == np.int32
    assert official["train"].tolist() == list(range(trained))
    assert official["test"].tolist() == list(range(trained, trained + 3))


def read_changed(tmp_path, change, name="cifar10", archive_of=None):
    files, _, _ = cifar_files(archive_of or name)
    change(files)
    return read_cifar(open_tree(write_tar(tmp_path / "a.tar", files)), name)


def test_truncated_records(tmp_path):
    file = "cifar-10-batches-bin/data_batch_3.bin"
    with pytest.raises(ValueError, match="truncated.*data_batch_3.bin .* 9218 bytes"):
        read_changed(tmp_path, lambda files: files.update({file: files[file][:-1]}))


def test_empty_record_file(tmp_path):
    file = "cifar-10-batches-bin/test_batch.bin"
    with pytest.raises(ValueError, match="test_batch.bin .* 0 bytes"):
        read_changed(tmp_path, lambda files: files.update({file: b""}))


def test_missing_record_file(tmp_path):
    file = "cifar-10-batches-bin/data_batch_5.bin"
    with pytest.raises(ValueError, match="lacks it") as caught:
        read_changed(tmp_path, lambda files: files.pop(file))
    assert "data_batch_5.bin" in str(caught.value)


def test_label_out_of_range(tmp_path):
    file = "cifar-10-batches-bin/data_batch_1.bin"

    def change(files):
        data = bytearray(files[file])
        data[3073] = 10
        files[file] = bytes(data)

    with pytest.raises(ValueError, match="from 0 to 9. Received: 10 in record 1"):
        read_changed(tmp_path, change)


def test_archive_of_the_other_data_set(tmp_path):
    with pytest.raises(ValueError, match="cifar-10-binary.tar.gz.*lacks it"):
        read_changed(tmp_path, lambda files: None, "cifar10", archive_of="cifar100")


@pytest.mark.parametrize(
    "name, files",
    [
        ("cifar10", ("data_batch_1", "test_batch", "batches.meta")),
        ("cifar100", ("train", "test", "meta")),
    ],
)
def test_python_version_is_refused(tmp_path, name, files):
    contents = {f"cifar-py/{file}": b"\x80\x02}q\x01." for file in files}
    tree = open_tree(write_tar(tmp_path / "python.tar.gz", contents, "w:gz"))
    assert has_cifar_files(tree)
    with pytest.raises(ValueError, match="-binary.tar.gz.* python version"):
        read_cifar(tree, name)


def test_folders_of_images_are_not_cifar_files(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"train/cat/0.jpg": b"1"})
    assert not has_cifar_files(open_tree(path))
