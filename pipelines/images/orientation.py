"""EXIF orientation of encoded images, read and applied by TensorFlow operations.

The same graph runs in training and inside exported models. It reads the tag in JPEG
(APP1), PNG (`eXIf`) and WebP (`EXIF`); one in XMP alone is not read.
"""

import tensorflow as tf

# Segments or chunks that are looked through for the tag.
MOST_CHUNKS = 2000
TAG = 0x0112


# Traced once, for all graphs that call it.
@tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
def read_orientation(data):
    """The EXIF orientation, an int32 scalar in 1..8.

    Args:
        data: String scalar, an encoded image. One of another format, or with a damaged
            tag, has the orientation 1.
    """
    start = _number(data, 0, 4)
    found = tf.case(
        [
            (start // 2**16 == 0xFFD8, lambda: _find(data, 2, _jpeg_segment)),
            (start == 0x89504E47, lambda: _find(data, 8, _png_chunk)),
            (start == 0x52494646, lambda: _find(data, 12, _webp_chunk)),
        ],
        default=lambda: tf.constant(0, tf.int64),
    )
    return tf.cond(found > 0, lambda: _tagged(data, found), lambda: tf.constant(1))


def turned(image, orientation):
    """An image `(height, width, channels)` of an orientation in 1..8, upright."""
    orientation = tf.convert_to_tensor(orientation)
    image = tf.cond(
        orientation >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image
    )
    flipped = tf.stack(_flips(orientation))
    return tf.reverse(image, tf.boolean_mask([0, 1], flipped))


def turned_size(size, orientation):
    """Height and width of an image of an orientation in 1..8, upright."""
    return tuple(size[::-1]) if orientation >= 5 else tuple(size)


def turned_box(box, size, orientation):
    """A box of an image of an orientation in 1..8 in the pixels of the upright image.

    Args:
        box: `(y0, x0, y1, x1)`, half-open, in pixels of the image as it is stored.
        size: Height and width of the image as it is stored.
        orientation: Integer in 1..8.
    """
    y0, x0, y1, x1 = box
    if orientation >= 5:
        y0, x0, y1, x1 = x0, y0, x1, y1
    height, width = turned_size(size, orientation)
    down, right = _flips(orientation)
    if down:
        y0, y1 = height - y1, height - y0
    if right:
        x0, x1 = width - x1, width - x0
    return y0, x0, y1, x1


def _flips(orientation):
    """True for rows and for columns that are reversed, after both are exchanged."""
    return (orientation + 1) % 4 < 2, orientation % 4 > 1


def _find(data, start, chunk):
    """Position of the TIFF header of the EXIF data, or 0."""
    size = tf.cast(tf.strings.length(data), tf.int64)

    def step(position, _):
        following, payload = chunk(data, position)
        # At least a byte on, whatever a damaged file states.
        return tf.clip_by_value(following, position + 1, size + 1), payload

    _, payload = tf.while_loop(
        lambda position, payload: (position < size) & (payload == 0),
        step,
        (tf.constant(start, tf.int64), tf.constant(0, tf.int64)),
        maximum_iterations=MOST_CHUNKS,
    )
    named = (payload > 0) & (_number(data, payload, 4) == 0x45786966)  # "Exif"
    return tf.where(named, payload + 6, payload)


def _jpeg_segment(data, position):
    marker = _number(data, position, 2)
    length = _number(data, position + 2, 2)
    exif = _number(data, position + 4, 4) == 0x45786966
    # Fill bytes, and markers without a length.
    alone = (marker == 0xFF01) | ((marker >= 0xFFD0) & (marker <= 0xFFD8))
    length = tf.where(marker == 0xFFFF, tf.constant(-1, tf.int64), length)
    length = tf.where(alone, tf.constant(0, tf.int64), length)
    # The pixels, the end, or no marker.
    last = (marker < 0xFF00) | (marker == 0xFFD9) | (marker == 0xFFDA)
    following = tf.where(last, tf.int64.max, position + 2 + length)
    found = (marker == 0xFFE1) & exif
    return following, tf.where(found, position + 4, tf.constant(0, tf.int64))


def _png_chunk(data, position):
    found = _number(data, position + 4, 4) == 0x65584966  # "eXIf"
    following = position + 12 + _number(data, position, 4)
    return following, tf.where(found, position + 8, tf.constant(0, tf.int64))


def _webp_chunk(data, position):
    found = _number(data, position, 4) == 0x45584946  # "EXIF"
    length = _number(data, position + 4, 4, little=True)
    following = position + 8 + length + length % 2
    return following, tf.where(found, position + 8, tf.constant(0, tf.int64))


def _tagged(data, start):
    """The orientation in the first directory of the TIFF data at `start`."""
    order = _number(data, start, 2)
    little = order == 0x4949
    directory = start + _number(data, start + 4, 4, little)
    count = _number(data, directory, 2, little)
    entries = _bytes(data, directory + 2, 12 * count)
    entries = tf.reshape(entries[: 12 * (tf.size(entries) // 12)], (-1, 12))
    # A number of two bytes comes first in its field of four, in either order.
    pairs = tf.reshape(entries, (-1, 6, 2))
    pairs = tf.where(little, pairs[..., ::-1], pairs)
    tags, kinds, _, _, value, second = tf.unstack(
        256 * pairs[..., 0] + pairs[..., 1], axis=1
    )
    value = tf.where((kinds == 4) & ~little, second, value)
    values = tf.boolean_mask(value, (tags == TAG) & ((kinds == 3) | (kinds == 4)))
    found = tf.concat([values, [1]], 0)[0]
    known = (little | (order == 0x4D4D)) & (found >= 1) & (found <= 8)
    return tf.where(known, found, 1)


def _bytes(data, position, length):
    """int32 bytes of a string scalar; fewer where it ends."""
    size = tf.cast(tf.strings.length(data), tf.int64)
    position = tf.clip_by_value(tf.cast(position, tf.int64), 0, size)
    length = tf.clip_by_value(tf.cast(length, tf.int64), 0, size - position)
    part = tf.strings.substr(data, position, length)
    return tf.cast(tf.io.decode_raw(part, tf.uint8), tf.int32)


def _number(data, position, count, little=False):
    """An unsigned integer of 2 or 4 bytes, int64; zeros follow where the data ends."""
    found = tf.cast(_bytes(data, position, count), tf.int64)
    found = tf.concat([found, tf.zeros(count - tf.size(found), tf.int64)], 0)
    found = tf.where(little, found[::-1], found)
    return tf.reduce_sum(found * [256**power for power in range(count)][::-1])


def orientation_of(data: bytes) -> int:
    """`read_orientation` outside of a graph."""
    if any(name in data for name in (b"Exif", b"eXIf", b"EXIF")):
        return int(read_orientation(data))
    return 1
