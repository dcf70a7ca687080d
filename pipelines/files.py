"""Files that appear only when they are complete, digests of contents, and damage."""

import contextlib
import hashlib
import os
import pathlib
import shutil
import zipfile
import zlib

import numpy as np

# Errors of reading damaged archives, arrays and JSON; JSON of other content than
# expected adds the wrong types.
DAMAGE = (
    *(OSError, EOFError, MemoryError, NotImplementedError, RecursionError),
    *(ValueError, TypeError, KeyError),
    *(zipfile.BadZipFile, zlib.error),
)


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
