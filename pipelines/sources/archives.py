"""Reading of folders, archives and the CIFAR binary archives.

A folder, a zip and a tar archive look the same to the rest of the package: a
`FileTree`, names with a way to read them. Nothing is ever written to disk.
"""

import functools
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_attn.pipelines.collections.open import located, reader
from keras_attn.pipelines.collections.tar import is_compressed, members
from keras_attn.pipelines.images.decoding import where_of
from keras_attn.pipelines.sources.catalogue import KNOWN
from keras_attn.pipelines.sources.layouts import consecutive

# What reading a damaged archive raises.
DAMAGED = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
MAX_ARCHIVE_BYTES = 2 * 1024**3
MAX_DEPTH = 6

CIFAR_FILES = {
    "cifar10": {
        "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        "test": ("test_batch.bin",),
    },
    "cifar100": {"train": ("train.bin",), "test": ("test.bin",)},
}
BINARY_NAMES = {
    file for parts in CIFAR_FILES.values() for files in parts.values() for file in files
}
PYTHON_NAMES = {"batches.meta", "meta", "data_batch_1"}


@dataclass(frozen=True, eq=False)
class FileTree:
    """The files under a folder or in an archive.

    Attributes:
        root: Path of the folder or the archive.
        sizes: Bytes of every regular file, by its name relative to the root, with
            `/` between folders, sorted by name; 0 for a broken link. Hidden files are
            left out.
        folders: Names of the folders, sorted.
        read: Gives the bytes of a file by its name.
        stamp: Gives the size of a file and a text that changes when its content does,
            by its name.
        label: Gives the entry of a file in `Source.files`, by its name.
        remote: Whether reading a file is a request to another machine.
    """

    root: str
    sizes: dict[str, int]
    folders: tuple[str, ...]
    read: Callable[[str], bytes]
    stamp: Callable[[str], tuple[int, str]]
    label: Callable[[str], str | tuple[str, str]]
    remote: bool = False

    def where(self, name):
        """The name of a file in messages."""
        return where_of(self.label(name))


def open_tree(path) -> FileTree:
    """List a folder, or a zip or a tar archive (plain, gz, bz2 or xz), or a URL of one.

    Raises:
        FileNotFoundError: Nothing is there.
        ValueError: A file that is no archive, a damaged one, or a compressed one with
            more than 2 GB of files, which are held in memory.
    """
    filesystem, (path, *others) = located(path)
    is_folder = filesystem.is_folder(path)
    if is_folder and not others:
        return (_remote_tree if filesystem.remote else _folder_tree)(filesystem, path)
    if not filesystem.exists(path):
        raise FileNotFoundError(
            f"Expected a folder or an archive. Received: {filesystem.url(path)}"
        )
    if not is_folder:
        with filesystem.open(path) as file:
            plain = not zipfile.is_zipfile(file)
        if plain and not is_compressed(filesystem.read(path, 0, 6)):
            return tar_tree(filesystem, [path, *others])
    if others:
        raise ValueError(
            "Expected tar archives that are not compressed, where there are several. "
            f"Received: {filesystem.url(path)}"
        )
    return _archive_tree(filesystem, path)


def _folder_tree(filesystem, path):
    root = Path(path)
    sizes, folders = {}, []

    def walk(folder, prefix, depth):
        for entry in os.scandir(folder):
            if _hidden(entry.name):
                continue
            name = prefix + entry.name
            if entry.is_dir():
                folders.append(name)
                # Ends the descent where a link leads back up.
                if depth < MAX_DEPTH:
                    walk(entry.path, name + "/", depth + 1)
            elif entry.is_file():
                sizes[name] = entry.stat().st_size
            elif entry.is_symlink():
                sizes[name] = 0

    walk(root, "", 1)
    return FileTree(
        root=str(root),
        sizes=dict(sorted(sizes.items())),
        folders=tuple(sorted(folders)),
        read=lambda name: (root / name).read_bytes(),
        stamp=lambda name: _stamp_of_file(root / name),
        label=lambda name: os.path.join(root, name),
    )


def _remote_tree(filesystem, root):
    stamps = {os.fsdecode(name): stamp for name, stamp in filesystem.stamps(root)}
    return FileTree(
        root=filesystem.url(root),
        sizes={name: size for name, (size, _) in sorted(stamps.items())},
        folders=_folders(stamps),
        read=lambda name: filesystem.read(f"{root.rstrip('/')}/{name}"),
        stamp=stamps.__getitem__,
        label=lambda name: filesystem.url(f"{root.rstrip('/')}/{name}"),
        remote=True,
    )


def tar_tree(filesystem, paths) -> FileTree:
    """List plain tar archives as one tree, whose files are read where they lie."""
    places, folders = {}, []
    url = filesystem.url(paths[0])
    for path in paths:
        stamp = filesystem.stamp(path)
        found = {}
        try:
            with filesystem.open(path) as file:
                for given, offset, size in members(reader(file), stamp[0]):
                    name = os.fsdecode(given).removeprefix("./").rstrip("/")
                    if any(_hidden(part) for part in name.split("/")):
                        continue
                    if offset < 0:
                        folders.append(f"{name}/")
                    else:
                        found[name] = (path, stamp, offset, size)
        except (OSError, *DAMAGED, ValueError) as error:
            raise _no_archive(filesystem.url(path), error) from error
        for name in found.keys() & places.keys():
            raise ValueError(
                f"Expected every file in one archive. Received: {name} in "
                f"{filesystem.url(places[name][0])} and {filesystem.url(path)}"
            )
        places.update(found)

    def read(name):
        path, stamp, offset, size = places[name]
        return filesystem.read(path, offset, size, stamp)

    return FileTree(
        root=url,
        sizes={name: place[-1] for name, place in sorted(places.items())},
        folders=_folders([*places, *folders]),
        read=read,
        stamp=lambda name: _checksum(read(name)),
        label=lambda name: (filesystem.url(places[name][0]), name),
        remote=filesystem.remote,
    )


def _folders(names):
    """All folders around files, sorted."""
    found = set()
    for name in names:
        end = name.rfind("/")
        while end > 0 and name[:end] not in found:
            found.add(name[:end])
            end = name.rfind("/", 0, end)
    return tuple(sorted(found))


def _checksum(data):
    return len(data), f"{zlib.crc32(data):08x}"


def _no_archive(where, error):
    return ValueError(
        "Expected a folder, a zip or a complete tar archive (.tar, .tar.gz, "
        f".tar.bz2, .tar.xz). Received: {where} ({error})."
    )


def _archive_tree(filesystem, path):
    contents, folders, total = {}, [], 0
    where = filesystem.url(path)
    try:
        with filesystem.open(path) as file:
            for given, size, is_folder, read in _members(file):
                name = given.removeprefix("./").rstrip("/")
                if any(_hidden(part) for part in name.split("/")):
                    continue
                if is_folder:
                    folders.append(f"{name}/")
                    continue
                total += size
                if total > MAX_ARCHIVE_BYTES:
                    raise ValueError(
                        f"{where} holds more than {MAX_ARCHIVE_BYTES / 1024**3:g} GB "
                        "of files. Unpack it and pass the folder."
                    )
                contents[name] = read()
    except (tarfile.TarError, OSError, RuntimeError, *DAMAGED) as error:
        raise _no_archive(where, error) from error
    contents = dict(sorted(contents.items()))
    return FileTree(
        root=where,
        sizes={name: len(data) for name, data in contents.items()},
        folders=_folders([*contents, *folders]),
        read=contents.__getitem__,
        stamp=lambda name: _checksum(contents[name]),
        label=lambda name: (where, name),
    )


def _members(file):
    """Yield `(name, bytes, is a folder, read)` of a zip or compressed tar archive.

    Links and devices are left out: they have no content of their own.
    """
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for each in archive.infolist():
                read = functools.partial(archive.read, each)
                yield each.filename, each.file_size, each.is_dir(), read
        return
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r|*") as archive:
        for member in archive:
            if member.isdir() or member.isreg():
                yield (
                    member.name,
                    member.size,
                    member.isdir(),
                    lambda member=member: archive.extractfile(member).read(),
                )


def _stamp_of_file(path):
    status = path.stat()
    return status.st_size, str(status.st_mtime_ns)


def _hidden(name):
    return name.startswith(".") or name == "__MACOSX"


def has_cifar_files(tree) -> bool:
    """Tests whether a tree holds an official CIFAR archive, of any version."""
    names = {_base(name) for name in tree.sizes}
    return bool(names & (BINARY_NAMES | PYTHON_NAMES))


def read_cifar(tree, name):
    """Read the official binary version of CIFAR-10 or CIFAR-100.

    A record is the label, one byte (CIFAR-100: the coarse and the fine label; the fine
    one is taken), then 3072 bytes of pixels: the red, the green and the blue
    plane of 32 rows of 32.

    Args:
        tree: A `FileTree` with the .bin files, in any folder.
        name: "cifar10" or "cifar100".

    Returns:
        A dict of fields of `Source`: `class_names`, `images`, `labels`, `official`. The
        training images come first.

    Raises:
        ValueError: The python version of the archive, the files of the other data
            set, a missing or truncated file, or a label out of range.
    """
    known = KNOWN[name]
    found = {_base(path): path for path in tree.sizes}
    if not BINARY_NAMES & set(found):
        raise ValueError(
            f"Expected the binary version of {name}, {known.archive}. Received: "
            f"{tree.root}, the python version, whose pickles could run any code. The "
            f"binary version is at {known.url}"
        )
    images, labels, sizes = [], [], {}
    for part, files in CIFAR_FILES[name].items():
        for file in files:
            if file not in found:
                raise ValueError(
                    f"Expected {file} among the files of {name} ({known.archive}). "
                    f"Received: {tree.root}, which lacks it."
                )
            pixels, numbers = _cifar_records(tree, found[file], name)
            images.append(pixels)
            labels.append(numbers)
            sizes[part] = sizes.get(part, 0) + len(numbers)
    return {
        "class_names": known.class_names,
        "images": np.concatenate(images),
        "labels": np.concatenate(labels),
        "official": consecutive(sizes),
    }


def _cifar_records(tree, file, name):
    label_bytes = 1 if name == "cifar10" else 2
    data = np.frombuffer(tree.read(file), np.uint8)
    where = f"{file} in {tree.root}"
    record = label_bytes + 3072
    if not data.size or data.size % record:
        raise ValueError(
            f"Expected whole records of {record} bytes; the file is truncated or not "
            f"of {name}. Received: {where} with {data.size} bytes."
        )
    data = data.reshape(-1, record)
    labels = data[:, label_bytes - 1].astype(np.int32)
    classes = len(KNOWN[name].class_names)
    if labels.max() >= classes:
        raise ValueError(
            f"Expected labels from 0 to {classes - 1}. Received: {labels.max()} in "
            f"record {labels.argmax()} of {where}."
        )
    planes = data[:, label_bytes:].reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels


def _base(name):
    return name.rsplit("/", 1)[-1]
