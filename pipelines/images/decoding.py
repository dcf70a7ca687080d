"""Decoding of image files to arrays, with errors that name the file."""

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import ImageOps

from keras_attn.pipelines.images.headers import (
    CONVERTED,
    NO_IMAGE,
    converted,
    header_problem,
    open_header,
)
from keras_attn.pipelines.images.orientation import (
    orientation_of,
    turned,
    turned_size,
)

# Files per round of `decode_files`: their encoded bytes are held at the same time.
CHUNK = 4096
# Bytes of a JPEG in which its orientation is looked for.
HEADER_BYTES = 2**17
# Older versions of TensorFlow decode no WebP.
DECODES_WEBP = hasattr(tf.io, "decode_webp")


class CorruptImageError(ValueError):
    """An image that cannot be decoded; the message begins with its name.

    Args:
        where: Path, or any other name, of the image.
        reason: Problem with it.
    """

    def __init__(self, where, reason):
        super().__init__(f"{where}: {reason}")
        self.where = where
        self.reason = reason


class Decoded(NamedTuple):
    """Images of many files.

    Attributes:
        images: uint8 `(number of readable files, height, width, 3)`.
        kept: The readable files: their indices, ascending, or their paths.
        problems: `CorruptImageError`s, one for each other file.
    """

    images: np.ndarray
    kept: np.ndarray | list
    problems: tuple


def decode_image(data: bytes, where: str, banner: int = 0) -> np.ndarray:
    """Decode a JPEG, PNG, GIF (first frame), BMP or WebP image to RGB, upright.

    The decoder is `tf.io.decode_image`, the one that an exported model uses, so that
    training and serving see the same numbers. TIFF, AVIF and animated WebP, and HEIC
    where a plugin of Pillow reads it, are converted before, their first frame. Grey
    images are repeated over the three channels, transparency is dropped (not blended),
    16-bit samples keep their upper eight bits, and the EXIF orientation is applied.
    JPEG has no checksum: damage inside one that leaves its length and structure alone
    is not noticed.

    Args:
        data: The encoded file.
        where: The name of the image in error messages, usually its path.
        banner: Rows at the bottom that are no part of the image and are cut off.

    Returns:
        A uint8 array of shape (height, width, 3), values 0..255.

    Raises:
        CorruptImageError: The data is empty, not an image of these formats,
            truncated or damaged, larger than 100 megapixels (seen in its header,
            before it is decoded), or nothing but banner.

    Example:

    >>> pixels = decode_image(open("cat.jpg", "rb").read(), "cat.jpg")
    """
    data, orientation, reason = _prepared(data)
    if reason is None:
        try:
            image = _decode(data, orientation).numpy()
            return image[: rows_above(banner, image.shape[0], where)]
        except tf.errors.OpError as error:
            reason = _first_sentence(error)
    raise CorruptImageError(where, reason)


def image_size(file: str | bytes, where: str, banner: int = 0) -> tuple[int, int]:
    """Height and width of an upright image, from its header alone.

    Args:
        file: Path of an image file, or its content.
        where, banner: See `decode_image`.

    Raises:
        CorruptImageError: The file cannot be read, or is no image of these formats, or
            nothing but banner.
    """
    height, width = turned_size(*stored_size(file, where))
    return rows_above(banner, height, where), width


def stored_size(file: str | bytes, where: str) -> tuple[tuple[int, int], int]:
    """`(height, width)` of an image as it is stored, and its EXIF orientation.

    A format that is converted counts as stored upright. Arguments and errors are those
    of `image_size`.
    """
    try:
        with open_header(file) as image:
            width, height = image.size
            if image.format in CONVERTED:
                # Pillow turns some of them as it loads them.
                width, height = ImageOps.exif_transpose(image).size
                return (height, width), 1
            # JPEG has the tag among the first segments, others have it anywhere.
            start = HEADER_BYTES if image.format in ("JPEG", "MPO") else -1
        if isinstance(file, str):
            with open(file, "rb") as opened:
                file = opened.read(start)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise unreadable(where, error) from error
    except Exception as error:  # Pillow's parsers raise many types.
        raise CorruptImageError(where, NO_IMAGE) from error
    return (height, width), orientation_of(file)


def _prepared(data):
    """`(data, orientation, reason)`: a file as TensorFlow decodes it, or why not."""
    reason = header_problem(data)
    if reason is None:
        data, reason = converted(data, webp=not DECODES_WEBP)
    return data, 1 if reason else orientation_of(data), reason


def rows_above(banner, height, where):
    """Rows of an image without its banner; a `CorruptImageError` if none remain."""
    if height <= banner:
        raise CorruptImageError(
            where, f"{height} rows. Expected more than the banner's {banner}"
        )
    return height - banner


def decode_files(
    read: Callable[[int], bytes],
    where: Sequence[str],
    size: tuple[int, int],
    fit: Callable | None = None,
    progress: Callable[[int, int], None] | None = None,
    banner: int = 0,
) -> Decoded:
    """Decode many files to one array, in parallel, and list those that are corrupt.

    Args:
        read: Gives the encoded bytes of the i-th file; an `OSError` from it counts
            as a corrupt file.
        where: The name of every file in messages.
        size: (height, width) of the result.
        fit: Brings one (H, W, 3) uint8 tensor to `size`, inside `Dataset.map`. It is
            not called for an image that has that size already.
        progress: Called with (files done, files in all) now and then.
        banner: See `decode_image`.

    Returns:
        `Decoded`, with the indices of the readable files.
    """
    total = len(where)
    images = np.empty((total, *size, 3), np.uint8)
    good = np.zeros(total, bool)
    problems = {}
    with ThreadPoolExecutor(max_workers=min(8, 2 * (os.cpu_count() or 1))) as pool:
        for start in range(0, total, CHUNK):
            indices = range(start, min(start + CHUNK, total))
            chunk = {}
            blocks = [indices[i : i + 64] for i in range(0, len(indices), 64)]
            for block in pool.map(lambda block: _read_checked(read, block), blocks):
                for index, data, orientation, reason in block:
                    if reason is None:
                        chunk[index] = data, orientation
                    else:
                        problems[index] = CorruptImageError(where[index], reason)
            for decoded, batch in _decode_chunk(chunk, size, fit, banner):
                images[decoded] = batch
                good[decoded] = True
                if progress is not None and decoded[-1] < indices[-1]:
                    progress(int(decoded[-1]) + 1, total)
            for index in chunk:
                if not good[index]:
                    problems[index] = _problem_of(
                        *chunk[index], where[index], size, fit, banner
                    )
            if progress is not None:
                progress(indices[-1] + 1, total)
    kept = np.flatnonzero(good)
    problems = tuple(problems[index] for index in sorted(problems))
    return Decoded(images if good.all() else images[kept], kept, problems)


def check_files(read: Callable[[int], bytes], where: Sequence[str], banner: int = 0):
    """Decode every file and keep none, to find those that are corrupt.

    Args:
        read, where, banner: See `decode_files`.

    Returns:
        A tuple of `CorruptImageError`, one for each file that cannot be decoded.
    """

    def problem(index):
        try:
            decode_image(read(index), where[index], banner)
        except CorruptImageError as error:
            return error
        except OSError as error:
            return unreadable(where[index], error)

    return tuple(error for error in in_parallel(problem, len(where)) if error)


def in_parallel(function: Callable, count: int):
    """Yield the results of a function for the indices 0, 1, ..., in this order."""
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        # A round of files at a time, since the pool queues all that it is given.
        for start in range(0, count, CHUNK):
            yield from pool.map(function, range(start, min(start + CHUNK, count)))


def unreadable(where, error):
    """The `CorruptImageError` of an `OSError` on reading a file."""
    return CorruptImageError(where, f"cannot be read ({error.strerror or error})")


def _read_checked(read, indices):
    results = []
    for index in indices:
        try:
            results.append((index, *_prepared(read(index))))
        except OSError as error:
            results.append((index, b"", 1, unreadable("", error).reason))
    return results


def _decode(data, orientation):
    image = tf.io.decode_image(data, channels=3, expand_animations=False)
    image.set_shape((None, None, 3))
    return turned(image, orientation)


def _decode_and_fit(data, orientation, size, fit, banner):
    image = _decode(data, orientation)
    rows = tf.maximum(tf.shape(image)[0] - banner, 0)
    return fit_image(image[:rows], size, fit)


@functools.lru_cache(maxsize=4)
def _decoder(size, fit, banner):
    """`_decode_and_fit`, traced once for calls with the same arguments."""
    file = tf.TensorSpec((), tf.string), tf.TensorSpec((), tf.int32)
    return tf.function(
        lambda *file: _decode_and_fit(*file, size, fit, banner), file, autograph=False
    )


def fit_image(image, size, fit=None):
    """One decoded image in `size`, inside `Dataset.map`; see `decode_files`."""
    if fit is not None:
        image = tf.cond(
            tf.reduce_all(tf.equal(tf.shape(image)[:2], size)),
            lambda: image,
            lambda: tf.cast(fit(image), tf.uint8),
        )
    return tf.ensure_shape(image, (*size, 3))


def _decode_chunk(chunk, size, fit, banner):
    """Yield batches (indices, images) of those files that can be decoded."""
    if not chunk:
        return
    dataset = tf.data.Dataset.from_tensor_slices(
        (
            np.fromiter(chunk, np.int64),
            tf.constant([data for data, _ in chunk.values()], tf.string),
            np.array([orientation for _, orientation in chunk.values()], np.int32),
        )
    )
    decoder = _decoder(tuple(size), fit, banner)

    @tf.autograph.experimental.do_not_convert
    def decoded(index, *file):
        return index, decoder(*file)

    dataset = dataset.map(decoded, num_parallel_calls=tf.data.AUTOTUNE)
    # A failing file drops out here; the caller sees the gap and asks for the reason.
    dataset = dataset.ignore_errors().batch(64).prefetch(2)
    yield from dataset.as_numpy_iterator()


def _problem_of(data, orientation, where, size, fit, banner):
    """The error of one file; errors that are not the file's fault are raised."""
    try:
        decode_image(data, where, banner)
    except CorruptImageError as error:
        return error
    _decode_and_fit(data, orientation, size, fit, banner)
    raise RuntimeError(f"{where} failed in a batch but not alone.")


def _first_sentence(error):
    text = str(error.message).split("[Op:")[0]
    text = text.rsplit("}} ", 1)[-1].strip()
    return f"truncated or damaged ({text.splitlines()[0] if text else 'unknown'})"


def where_of(label):
    """An entry of `Source.files` as text."""
    if isinstance(label, str):
        return label
    archive, member = label
    return f"{member} in {archive}"
