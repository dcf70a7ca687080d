"""Files of this machine and, through fsspec, of other places."""

import functools
import logging
import os
import stat

from keras_attn.pipelines.files import walk_files

# What tells two contents of a file apart, by the filesystem.
VERSIONS = ("ETag", "etag", "md5Hash", "generation", "mtime", "LastModified", "created")


# Requests of a remote place at the same time.
REQUESTS = 32
# Files that are kept open.
OPEN = 128


@functools.lru_cache(maxsize=OPEN)
def _opened(path, stamp):
    """The file of a path and a stamp; closed when it is used no more."""
    return open(path, "rb", buffering=0)


class Local:
    """Files of this machine. Paths are as the operating system has them."""

    remote = False

    def url(self, path):
        """The name of a file in messages."""
        return path

    def exists(self, path):
        return os.path.exists(path)

    def is_folder(self, path):
        return os.path.isdir(path)

    def entries(self, folder):
        """Names of the files and of the folders in a folder."""
        with os.scandir(folder) as found:
            return _divided((entry.name, entry.is_dir()) for entry in found)

    def walk(self, folder):
        """Yields `(name, size)`, see `walk_files`."""
        return walk_files(folder)

    def stamp(self, path):
        """Size of a file, and a text that changes when its content does."""
        status = os.stat(path)
        return status.st_size, str(status.st_mtime_ns)

    def size(self, path):
        """Size of a file, 0 without one."""
        try:
            status = os.stat(path)
        except OSError:
            return 0
        return status.st_size if stat.S_ISREG(status.st_mode) else 0

    def read(self, path, start=0, count=None, expected=None):
        """Bytes of a file.

        Args:
            path: The file.
            start, count: The part of it; the whole by default. Files that are read in
                parts stay open.
            expected: `stamp` of the file that is to be read.
        """
        if count is None:
            with open(path, "rb", buffering=0) as file:
                return file.readall()
        file = _opened(path, expected)
        if expected is not None:
            status = os.fstat(file.fileno())
            check_stamp(path, (status.st_size, str(status.st_mtime_ns)), expected)
        return os.pread(file.fileno(), count, start)

    def open(self, path):
        return open(path, "rb")


class Remote:
    """Files of an fsspec filesystem. Paths are without the protocol.

    Args:
        filesystem: An `fsspec.AbstractFileSystem`.
    """

    remote = True

    def __init__(self, filesystem):
        self.filesystem = filesystem

    def url(self, path):
        """The name of a file in messages."""
        return self.filesystem.unstrip_protocol(path)

    def exists(self, path):
        return self._kind(path) is not None

    def is_folder(self, path):
        return self._kind(path) == "directory"

    def _kind(self, path):
        # `exists` and `isdir` of fsspec take a place out of reach for an empty one.
        try:
            return self._call("info", path)["type"]
        except FileNotFoundError:
            return None

    def entries(self, folder):
        """Names of the files and of the folders in a folder."""
        found = self._call("ls", folder, detail=True)
        return _divided(
            (each["name"].rstrip("/").split("/")[-1], each["type"] == "directory")
            for each in found
        )

    def walk(self, folder):
        """Yields `(name, size)` as `walk_files`."""
        return ((name, size) for name, (size, _) in self.stamps(folder))

    def stamps(self, folder):
        """Yields `(name, stamp)` of the files that `walk` gives, by one listing."""
        # It is new each time, and not held twice.
        self.filesystem.invalidate_cache()
        found = self._call("find", folder, detail=True)
        self.filesystem.invalidate_cache()
        start = len(folder.rstrip("/")) + 1
        names = [path[start:] for path in found]
        for name, path in sorted(zip(names, found, strict=True), key=_by_parts):
            if not any(part.startswith(".") for part in name.split("/")):
                yield os.fsencode(name), _stamp_in(found[path])

    def stamp(self, path):
        """Size of a file, and a text that changes when its content does."""
        return _stamp_in(self._call("info", path))

    def size(self, path):
        """-1: asking for it would be one request per file."""
        return -1

    def read(self, path, start=0, count=None, expected=None):
        """Bytes of a file, see `Local.read`; whether it changed costs no request."""
        stop = None if count is None else start + count
        return self._call("cat_file", path, start=start or None, end=stop)

    def open(self, path):
        return self._call("open", path, "rb")

    def _call(self, function, path, *arguments, **options):
        try:
            return getattr(self.filesystem, function)(path, *arguments, **options)
        except FileNotFoundError as error:
            cause = error.__cause__
            # A host that does not answer is not found either, by some packages.
            if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
                raise self._unreadable(path, cause) from error
            raise FileNotFoundError(
                f"Expected a file or folder. Received: {self.url(path)}, which does "
                "not exist"
            ) from None
        # No network, no rights, no bucket: each its own type, one way out.
        except Exception as error:
            raise self._unreadable(path, error) from error

    def _unreadable(self, path, error):
        lines = str(error).strip().splitlines() or ["no message"]
        return OSError(
            f"Expected to read {self.url(path)}. Received: "
            f"{type(error).__name__}: {lines[0]}"
        )


def filesystem_of(path):
    """The filesystem of a path or URL, and the path there.

    Raises:
        ImportError: A package is missing; the message names it.
        ValueError: An unknown protocol.
    """
    path = os.fspath(path)
    protocol, separator, _ = path.partition("://")
    if not separator:
        return Local(), os.path.expanduser(path)
    fsspec = extra("fsspec", f"{protocol}://")
    try:
        filesystem, inside = fsspec.core.url_to_fs(path)
    except ImportError as error:
        raise ImportError(
            f"Expected the package that reads {protocol}://. Received: {path} ({error})"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"Expected a protocol of fsspec, such as s3, gs or file. Received: {path} "
            f"({error})"
        ) from error
    # Its retries are logged at length; what they end in is an error here.
    for name in ("gcsfs", "s3fs"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return Remote(filesystem), inside


def joined(folder, name):
    """The path or URL of a file in a folder."""
    if "://" in folder:
        return f"{folder.rstrip('/')}/{name}"
    return os.path.join(folder, name)


def extra(package, content):
    """A package of the extra `shards`, imported."""
    try:
        module = __import__(package)
        if package == "pyarrow":
            import pyarrow.parquet  # noqa: F401
        return module
    except ImportError as error:
        raise ImportError(
            f"Expected {package}, to read {content}. Install it: "
            "pip install 'keras-attn[shards]'"
        ) from error


def check_stamp(path, found, expected):
    """Raises `OSError` when a file is another one than was listed."""
    if found != expected:
        raise OSError(
            f"Expected {path} as it was listed. Received: {found[0]:,} bytes instead "
            f"of {expected[0]:,}, or of a later time"
        )


def _stamp_in(described):
    version = next((str(described[key]) for key in VERSIONS if key in described), "")
    return int(described.get("size") or 0), version


def _divided(entries):
    files, folders = [], []
    for name, is_folder in entries:
        (folders if is_folder else files).append(name)
    return files, folders


def _by_parts(item):
    return item[0].split("/")
