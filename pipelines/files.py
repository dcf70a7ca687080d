"""Files that appear only when they are complete, digests of contents, and damage."""

import contextlib
import hashlib
import json
import math
import os
import pathlib
import shutil
import struct
import zipfile
import zlib

import numpy as np

# Errors of reading damaged archives, arrays and JSON, and of content that is not the
# expected one.
DAMAGE = (
    *(OSError, EOFError, MemoryError, RuntimeError, ValueError, TypeError),
    *(AttributeError, LookupError, ArithmeticError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)
# What reading a file may take: bytes of JSON, bytes that every archive may unpack to,
# and further ones per byte of the archive.
JSON_BYTES = 2**26
UNPACKED_BYTES, UNPACKED_RATIO = 2**28, 32


def read_json(path):
    """The content of a JSON file of limited size; for errors see `DAMAGE`."""
    size = path.stat().st_size
    if size > JSON_BYTES:
        raise ValueError(f"{size:,} bytes, which is more than {JSON_BYTES:,}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def check_archive(path):
    """The bytes that a zip archive unpacks to.

    Raises one of `DAMAGE` if a file is not an archive, or unpacks beyond a limit.
    """
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    limit = UNPACKED_BYTES + UNPACKED_RATIO * os.path.getsize(path)
    if size > limit:
        raise ValueError(f"it unpacks to {size:,} bytes, more than {limit:,}")
    return size


def read_arrays(path, chosen=lambda name: True):
    """Dict of arrays of a `.npz` file; for errors see `DAMAGE`.

    Args:
        path: The file, which holds no more bytes per array than its header promises.
        chosen: Function from the name of an array to `True` if it is read.
    """
    check_archive(path)
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                _check_array_header(file, member)
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files if chosen(name)}


def _check_array_header(file, member):
    """Raises for a header whose shape takes more bytes than follow it."""
    version = np.lib.format.read_magic(file)
    reader = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        reader = np.lib.format.read_array_header_2_0
    shape, _, dtype = reader(file)
    if (
        math.prod(shape) * dtype.itemsize > member.file_size
        or min(shape, default=0) < 0
    ):
        raise ValueError(f"{member.filename} claims to hold an array of shape {shape}")


def walk_files(folder, prefix=b""):
    """Yields `(name, size)` of the files below a folder, sorted by the parts of names.

    Names are bytes, relative to the folder, with `/` between folders. Hidden files and
    folders are left out, and links to folders are not followed.
    """
    try:
        with os.scandir(os.fsencode(folder)) as entries:
            found = [each for each in map(_file_or_folder, entries) if each]
    except OSError as error:
        error.filename = os.fsdecode(error.filename)
        raise
    found.sort()
    for name, size in found:
        if size < 0:
            below = os.path.join(os.fsencode(folder), name)
            yield from walk_files(below, prefix + name + b"/")
        else:
            yield prefix + name, size


def _file_or_folder(entry):
    """Name and size, -1 of a folder; `None` for what is hidden or neither."""
    if entry.name.startswith(b"."):
        return None
    if entry.is_dir(follow_symlinks=False):
        return entry.name, -1
    return (entry.name, entry.stat().st_size) if entry.is_file() else None


def partial_path(path, writer=""):
    """The path at which a file is written before it gets its name.

    Args:
        path: The file.
        writer: Text that tells apart processes that may write the file at once.
    """
    return path.with_name(f".{path.name}{writer and '.'}{writer}.partial")


class write_then_rename:
    """Context of a binary file that appears under its name only when complete.

    Written beside the target, flushed to the disk, then renamed over it: whatever
    happens, the target is the old file or the new one.
    """

    def __init__(self, path, writer=""):
        self.path = pathlib.Path(path)
        self.temporary = partial_path(self.path, writer)

    def __enter__(self):
        self.file = open(self.temporary, "wb")
        return self.file

    def __exit__(self, kind, error, traceback):
        complete = False
        try:
            # Closing writes what is buffered, so on a full disk it fails too.
            with self.file:
                if kind is None:
                    self.file.flush()
                    os.fsync(self.file.fileno())
            complete = kind is None
        finally:
            if complete:
                os.replace(self.temporary, self.path)
            else:
                self.temporary.unlink(missing_ok=True)
        return False


@contextlib.contextmanager
def save_then_rename(path):
    """Context of a path to save to, for writers that insist on a file's suffix."""
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path, text):
    """Writes a text file that appears only when complete."""
    with write_then_rename(path) as file:
        file.write(text.encode())


def copy_file(source, path):
    """Copies a file; the copy appears only when complete."""
    with open(source, "rb") as content, write_then_rename(path) as file:
        shutil.copyfileobj(content, file)


def digest_of(*contents):
    """SHA-256 of contents one after the other, as hexadecimal text.

    Args:
        contents: Texts, bytes, `pathlib.Path`s of files, and arrays, whose shape and
            dtype count too.
    """
    digest = hashlib.sha256()
    for content in contents:
        if isinstance(content, pathlib.Path):
            with open(content, "rb") as file:
                hashlib.file_digest(file, lambda: digest)
        elif isinstance(content, str):
            digest.update(content.encode())
        elif isinstance(content, bytes):
            digest.update(content)
        else:
            array = np.ascontiguousarray(content)
            digest.update(f"{np.shape(content)} {array.dtype}".encode())
            digest.update(array.reshape(-1).view("uint8"))
    return digest.hexdigest()
