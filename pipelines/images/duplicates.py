"""Images seen for a check of their data set, and the same images among them."""

import collections
import itertools
from typing import NamedTuple

import numpy as np
from PIL import Image

from keras_attn.pipelines.files import digest_of
from keras_attn.pipelines.images.decoding import (
    CorruptImageError,
    decode_image,
    in_parallel,
    unreadable,
)
from keras_attn.pipelines.images.headers import CONVERTED, open_header
from keras_attn.pipelines.images.orientation import TAG, orientation_of

# Side of the differences that are compared, and those of 2 * SIDE ** 2 that may differ
# between near duplicates. Of the 4.3 million pairs of 2,934 photographs of TF Flowers,
# 11 differ in fewer, all of one motif; half the size, JPEG quality 30 and other
# brightness cost up to 24, a border of 2 % of the sides cut off 60 in the median.
SIDE, NEAR = 16, 64
# Grey levels between the darkest and the brightest part of images that are compared,
# and between the mean colours of near duplicates.
CONTRAST, COLOUR = 8, 64
# Images compared with all others at a time.
ROWS = 64
# Bytes that are read for a warning of equal files, one or two seconds' worth.
READ_BYTES = 2**28


class Seen(NamedTuple):
    """An image that was decoded.

    Attributes:
        size: Height and width, upright.
        digest: Digest of its pixels.
        differences: Bits, packed: each part of the image against its neighbours.
        colour: Mean red, green and blue.
        contrast: Grey levels between its darkest and its brightest part.
        mode: Format and Pillow's mode, `JPEG RGB`.
        orientation: EXIF orientation, 1 to 8.
    """

    size: tuple
    digest: str
    differences: np.ndarray
    colour: np.ndarray
    contrast: int
    mode: str = "RGB"
    orientation: int = 1


def see(source, progress=lambda done, total: None):
    """Decodes all images of a source and keeps none.

    Args:
        source: A `Source`.
        progress: Called with (images done, images in all) after every image.

    Returns:
        List of a `Seen`, or the `CorruptImageError`, for each image.
    """

    def one(index):
        where = source.where(index)
        try:
            if source.images is not None:
                return seen_of(source.images[index])
            data = source.read(index)
            pixels = decode_image(data, where, source.banner)
            with open_header(data) as image:
                mode = f"{image.format} {image.mode}"
                converted = image.format in CONVERTED
                turn = image.getexif().get(TAG, 1) if converted else None
            turn = orientation_of(data) if turn is None else turn
            return seen_of(pixels)._replace(mode=mode, orientation=turn)
        except CorruptImageError as error:
            return error
        except OSError as error:
            return unreadable(where, error)

    found = []
    for each in in_parallel(one, len(source)):
        found.append(each)
        progress(len(found), len(source))
    return found


def seen_of(pixels):
    """`Seen` of 8-bit pixels."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    grey = image.convert("L")
    box = Image.Resampling.BOX
    wide = np.asarray(grey.resize((SIDE + 1, SIDE), box), "int16")
    high = np.asarray(grey.resize((SIDE, SIDE + 1), box), "int16")
    bits = np.diff(wide, axis=1) > 0, np.diff(high, axis=0).T > 0
    return Seen(
        pixels.shape[:2],
        digest_of(pixels),
        np.packbits(bits),
        pixels.mean(axis=(0, 1)),
        int(np.ptp(wide)),
    )


def same_pixels(seen):
    """Lists of two or more indices of images of the same pixels."""
    groups = collections.defaultdict(list)
    for index, each in enumerate(seen):
        if isinstance(each, Seen):
            groups[each.digest].append(index)
    return [group for group in groups.values() if len(group) > 1]


def near_pairs(seen):
    """Pairs of indices of images that look the same and have other pixels.

    Of images of the same pixels the first alone is compared, and plain areas of one
    colour are not.
    """
    firsts = {}
    for index, each in enumerate(seen):
        if isinstance(each, Seen) and each.contrast >= CONTRAST:
            firsts.setdefault(each.digest, index)
    indices = np.array(list(firsts.values()), int)
    if not len(indices):
        return []
    bits = np.unpackbits([seen[index].differences for index in indices], axis=1)
    colours = np.stack([seen[index].colour for index in indices])
    signs = 2 * bits.astype("float32") - 1
    pairs = []
    for start in range(0, len(indices), ROWS):
        # Two bits that are the same add 1, others -1.
        apart = (signs.shape[1] - signs[start : start + ROWS] @ signs[start:].T) / 2
        for row, other in np.argwhere(apart <= NEAR) + start:
            close = np.abs(colours[row] - colours[other]).max() <= COLOUR
            if other > row and close:
                pairs.append((int(indices[row]), int(indices[other])))
    return pairs


def repeated_files(source, parts, most=READ_BYTES):
    """Files of the same bytes in more than one part of a split.

    Cheap: files are read where others have their size.

    Args:
        source: A `Source` of files.
        parts: Dict from files, entries of `Source.files`, to names of parts.
        most: Bytes that may be read; where it takes more, nothing is looked for.

    Returns:
        Lists of indices.
    """
    for_size = collections.defaultdict(list)
    for index, file in enumerate(source.files):
        if file in parts:
            for_size[source.stamp(index)[0]].append(index)
    for_size = {
        size: same
        for size, same in for_size.items()
        if len({parts[source.files[index]] for index in same}) > 1
    }
    if sum(size * len(same) for size, same in for_size.items()) > most:
        return []
    groups = collections.defaultdict(list)
    for index in itertools.chain(*for_size.values()):
        groups[digest_of(source.read(index))].append(index)
    return [
        group
        for group in groups.values()
        if len({parts[source.files[index]] for index in group}) > 1
    ]
