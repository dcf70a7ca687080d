"""Limits to what reading a model file allocates, by the bytes that the file holds."""

import contextlib
import functools
import io
import math
import os
import re
import threading
import zipfile

import h5py
import keras

from keras_attn.pipelines.files import JSON_BYTES, check_archive

# Bytes that the weights of every model may take, and further ones per byte of its file:
# some weights are not stored, others with fewer bits.
WEIGHT_BYTES, WEIGHT_RATIO = 2**26, 4
# While it is held, new variables are counted.
_COUNTING = threading.RLock()


@contextlib.contextmanager
def limited_weights(path):
    """Context in which a model is made from a `.keras` or `.h5` file.

    A variable that does not fit within the limit is refused before it is allocated,
    and so are stored arrays that claim more than their file can hold.

    Raises:
        ValueError: For weights that the file cannot hold.
    """
    stored = _checked_size(path)
    limit, taken, refused = WEIGHT_BYTES + WEIGHT_RATIO * stored, 0, ""
    thread, variable = threading.get_ident(), keras.Variable
    create, is_own = variable.__init__, "__init__" in vars(variable)

    @functools.wraps(create)
    def counted(self, initializer, shape=None, dtype=None, *rest, **options):
        nonlocal taken, refused
        if threading.get_ident() == thread:
            taken += _bytes(shape, dtype)
            if taken > limit:
                refused = (
                    f"its configuration asks for {taken:,} bytes of weights or more, "
                    f"the file holds {stored:,}"
                )
                raise ValueError(refused)
        create(self, initializer, shape, dtype, *rest, **options)

    with _COUNTING:
        variable.__init__ = counted
        try:
            yield
        except Exception as error:
            # Keras may have put it into other words.
            if refused:
                raise ValueError(refused) from error
            raise
        finally:
            if is_own:
                variable.__init__ = create
            else:
                del variable.__init__


def _bytes(shape, dtype):
    """Bytes of a new variable; none where Keras will not accept the shape."""
    try:
        count = math.prod(shape or ())
        bits = re.search(r"\d+", str(dtype or "float32"))
        return count * -(-int(bits[0] if bits else 8) // 8)
    except TypeError:
        return 0


def _checked_size(path):
    """Bytes that a model file holds, unpacked."""
    if not zipfile.is_zipfile(path):
        check_weights(path)
        return os.path.getsize(path)
    stored = check_archive(path)
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.filename.endswith(".json") and member.file_size > JSON_BYTES:
                raise ValueError(f"{member.filename} has {member.file_size:,} bytes")
            if member.filename.endswith(".weights.h5"):
                # Far quicker than within the archive, with its many small reads.
                _check_arrays(io.BytesIO(archive.read(member)), stored)
    return stored


def check_weights(path):
    """Refuses an HDF5 file whose arrays claim more bytes than it can hold."""
    if h5py.is_hdf5(path):
        _check_arrays(path, os.path.getsize(path))


def _check_arrays(file, stored):
    """Refuses arrays of an HDF5 file that claim more bytes than it can hold."""
    claimed = 0

    def add(name, item):
        nonlocal claimed
        if isinstance(item, h5py.Dataset):
            claimed += item.nbytes

    with h5py.File(file) as weights:
        weights.visititems(add)
    if claimed > WEIGHT_BYTES + WEIGHT_RATIO * stored:
        raise ValueError(
            f"its weights claim to have {claimed:,} bytes, the file holds {stored:,}"
        )
