"""How many pixels an encoded image has, from its headers, before it is decoded.

A small file can decode to gigabytes. What TensorFlow's decoders would allocate is read
here from the bytes that they look at first: JPEG, PNG, GIF with all its frames (they
are all unpacked, though only the first is used) and WebP. BMP is not compressed, so the
file itself bounds it. JPEG XL, whose header is hard to read, is refused.
"""

import struct

from keras_attn.training.serving.server.errors import invalid

# Of an image's limit, what all images of a batch may have together.
TOGETHER = 8


def check_images(values, max_pixels):
    """Checks encoded images; other strings are let through.

    Args:
        values: Iterable of bytes.
        max_pixels: Of one image; together they may have `TOGETHER` times as many.

    Returns:
        Pixels of all images together.

    Raises:
        ServingError: For a damaged header, and for too many pixels.
    """
    total = 0
    for index, data in enumerate(values):
        read = _reader(data)
        if read is None:
            continue
        try:
            pixels = read(data)
        except (struct.error, IndexError, ValueError) as error:
            raise invalid(
                f"Image {index}: truncated, or its header is damaged"
            ) from error
        if pixels > max_pixels:
            raise invalid(
                f"Image {index}: expected at most {max_pixels} pixels. "
                f"Received: {pixels}"
            )
        total += pixels
    if total > TOGETHER * max_pixels:
        raise invalid(
            f"Expected at most {TOGETHER * max_pixels} pixels in all images of a "
            f"request together. Received: {total}"
        )
    return total


def _reader(data):
    """By the first bytes that TensorFlow knows a format by."""
    if data[:3] == b"\xff\xd8\xff":
        return _jpeg
    if data[:4] == b"\x89PNG":
        return _png
    if data[:4] == b"GIF8":
        return _gif
    if data[:2] == b"\xff\x0a" or data[:12] == b"\0\0\0\x0cJXL \r\n\x87\n":
        raise invalid("Expected JPEG, PNG, GIF, BMP or WebP. Received: JPEG XL")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp
    return None


def _png(data):
    if data[12:16] != b"IHDR":
        raise ValueError
    width, height = struct.unpack_from(">II", data, 16)
    return width * height


def _jpeg(data):
    """Up to the start of the frame, as libjpeg goes through the markers."""
    position = 2
    while True:
        position = data.index(b"\xff", position)
        while data[position] == 0xFF:
            position += 1
        marker = data[position]
        position += 1
        if marker in (0xD9, 0xDA):  # The end, or a scan before any frame.
            raise ValueError
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, position + 3)
            return width * height
        if marker and marker != 0x01 and not 0xD0 <= marker <= 0xD8:
            position += struct.unpack_from(">H", data, position)[0]


def _gif(data):
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + _colours(flags)
    pixels = frames = 0
    # Data that ends early is left to the decoder, which keeps what it has read.
    while position < len(data) and data[position] in (0x21, 0x2C):
        if data[position] == 0x21:
            position += 2
        else:
            size = struct.unpack_from("<HHB", data, position + 5)
            pixels += size[0] * size[1]
            frames += 1
            position += 11 + _colours(size[2])
        while position < len(data) and data[position]:
            position += 1 + data[position]
        position += 1
    if not frames:
        raise ValueError
    return max(pixels, width * height)


def _colours(flags):
    """Bytes of a colour table."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _webp(data):
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return (width & 0x3FFF) * (height & 0x3FFF)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return ((bits & 0x3FFF) + 1) * ((bits >> 14 & 0x3FFF) + 1)
    if kind != b"VP8X":
        raise ValueError
    low, middle, high = struct.unpack_from("<HHH", data, 24)
    width = (low | (middle & 0xFF) << 16) + 1
    height = (middle >> 8 | high << 8) + 1
    return width * height * max(1, _animation_frames(data))


def _animation_frames(data):
    position, frames = 12, 0
    while position + 8 <= len(data):
        (size,) = struct.unpack_from("<I", data, position + 4)
        frames += data[position : position + 4] == b"ANMF"
        position += 8 + size + size % 2
    return frames
