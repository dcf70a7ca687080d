"""Image files by their first bytes, before anything is decoded.

`header_problem` finds what is no image of `FORMATS` or too large to decode: enough for
files of a data set. Untrusted bytes, of requests and uploads, go through
`decoded_pixels` too: a small file can decode to gigabytes, so it reads what the
decoders of TensorFlow would allocate, from the bytes that they look at first. Neither
needs TensorFlow.
"""

import io
import struct

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
FORMATS = ("JPEG", "PNG", "GIF", "BMP")
MAX_PIXELS = 100_000_000
NO_IMAGE = f"not an image, or with a damaged header. Expected {', '.join(FORMATS)}"


def header_problem(data: bytes) -> str | None:
    """The problem of an encoded image that its header alone shows, or `None`."""
    from PIL import Image

    if not data:
        return "the file is empty"
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            palette = image.format == "BMP" and image.mode in ("1", "P")
    except Image.DecompressionBombError:
        return f"larger than {MAX_PIXELS // 10**6} megapixels"
    except Exception:  # Pillow's parsers raise many types on damaged headers.
        return NO_IMAGE
    if width * height > MAX_PIXELS:
        return (
            f"{width} x {height} pixels, larger than {MAX_PIXELS // 10**6} megapixels"
        )
    if palette:
        # TensorFlow would take the numbers of the colours for grey values.
        return "a BMP with a palette. Save it as PNG"
    return None


def decoded_pixels(data):
    """Pixels that TensorFlow's decoders allocate for an encoded image.

    Reads JPEG, PNG, GIF and WebP, the last two with all their frames: these are
    unpacked, though only the first is used. BMP is not compressed, so the file itself
    bounds it. JPEG XL, whose header is hard to read, is refused.

    Returns:
        Number of pixels; `None` for BMP and for bytes that are no image.

    Raises:
        ValueError: If the header is damaged, or the image is a JPEG XL.
    """
    read = _reader(data)
    if read is None:
        return None
    try:
        return read(data)
    except (struct.error, IndexError, ValueError) as error:
        raise ValueError("truncated, or its header is damaged") from error


def _reader(data):
    """The parser of a format, by the first bytes that TensorFlow knows it by."""
    if data[:3] == b"\xff\xd8\xff":
        return _jpeg
    if data[:4] == b"\x89PNG":
        return _png
    if data[:4] == b"GIF8":
        return _gif
    if data[:2] == b"\xff\x0a" or data[:12] == b"\0\0\0\x0cJXL \r\n\x87\n":
        raise ValueError("expected JPEG, PNG, GIF, BMP or WebP. Received: JPEG XL")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp
    return None


def _png(data):
    if data[12:16] != b"IHDR":
        raise ValueError
    width, height = struct.unpack_from(">II", data, 16)
    return width * height


def _jpeg(data):
    """Reads up to the start of the frame, as libjpeg goes through the markers."""
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
    """Size of a colour table in bytes."""
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
