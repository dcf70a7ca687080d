"""Image files by their first bytes, before anything is decoded.

`header_problem` finds what is no image of `FORMATS` or too much to decode. A small file
can keep a decoder busy for minutes, so `decoded_pixels` counts the work of TensorFlow's
decoders from the bytes that they look at first; requests and uploads have lower limits
of it. Neither needs TensorFlow.
"""

import io
import re
import struct
import zlib

# Formats that TensorFlow decodes, in an exported model too; and those that Pillow
# converts before, the last with a plugin.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
CONVERTED = ("TIFF", "AVIF", "HEIF")
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp"),
    *(".tif", ".tiff", ".avif", ".heic", ".heif"),
)
MAX_PIXELS = 100_000_000
DAMAGED = "truncated, or its header is damaged"
# Scans of a JPEG that cost as much as the rest of its decoding; usual files have 10.
SCANS = 16
# A marker of a JPEG, but for those inside a scan.
MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
# The highest ratio of a PNG's compression, and unpacked bytes that are not counted.
DEFLATE, UNCOUNTED, PIECE = 1032, 2**26, 2**20
# The masks of colours of a BMP that TensorFlow reads.
BGR = struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)
NO_IMAGE = (
    "not an image, or with a damaged header. "
    f"Expected {', '.join((*FORMATS, *CONVERTED))}"
)
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"heim", b"heis")


def open_header(file):
    """A Pillow image of a path or of encoded bytes, in one of the formats above."""
    from PIL import Image

    Image.init()
    known = [name for name in (*FORMATS, *CONVERTED) if name in Image.OPEN]
    content = io.BytesIO(file) if isinstance(file, bytes) else file
    return Image.open(content, formats=known)


class Refused(ValueError):
    """An image that TensorFlow misreads, or whose work cannot be counted."""


def header_problem(data: bytes) -> str | None:
    """The problem of an encoded image that its header alone shows, or `None`."""
    from PIL import Image

    if not data:
        return "the file is empty"
    try:
        work = decoded_pixels(data) or 0
        with open_header(data) as image:
            width, height = image.size
    except Refused as error:
        return str(error)
    except Image.DecompressionBombError:
        return f"larger than {MAX_PIXELS // 10**6} megapixels"
    except Exception:  # Pillow's parsers raise many types on damaged headers.
        if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
            return "a HEIC, which Pillow reads with a plugin only. Save it as JPEG"
        return NO_IMAGE
    if width * height > MAX_PIXELS:
        return (
            f"{width} x {height} pixels, larger than {MAX_PIXELS // 10**6} megapixels"
        )
    if work > MAX_PIXELS:
        return f"larger than {MAX_PIXELS // 10**6} megapixels in frames, scans or data"
    return None


def format_to_convert(data):
    """Name of a format that TensorFlow does not read, by its first bytes, or `None`."""
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if data[4:8] == b"ftyp":
        return "AVIF" if data[8:11] == b"avi" else "HEIC"
    return None


def converted(data, webp=False):
    """`(data, reason)`: an encoded image in one of `FORMATS`, or its problem.

    Formats of `CONVERTED`, and WebP that moves, become PNG of the upright first frame;
    others stay as they are, whatever they are.

    Args:
        data: The encoded file.
        webp: Whether every WebP is converted.
    """
    riff = data[:4] == b"RIFF"
    moving = riff and data[12:16] == b"VP8X" and data[20:21] and data[20] & 2
    if not (moving or format_to_convert(data) or (riff and webp)):
        return data, None
    if reason := header_problem(data):
        return data, reason
    import numpy as np
    from PIL import Image, ImageOps

    try:
        with open_header(data) as image:
            if image.mode in ("I", "F"):
                return data, f"a {image.format} with 32-bit samples. Save it as PNG"
            if image.mode.startswith("I;16"):
                image = Image.fromarray((np.asarray(image) >> 8).astype("uint8"))
            buffer = io.BytesIO()
            upright = ImageOps.exif_transpose(image).convert("RGB")
            upright.save(buffer, "PNG", compress_level=1)
    except Exception as error:  # Pillow's parsers raise many types.
        return data, f"truncated or damaged ({error})"
    return buffer.getvalue(), None


def decoded_pixels(data, limit=MAX_PIXELS):
    """Pixels that TensorFlow's decoders work through for an encoded image.

    Reads JPEG, PNG, GIF, BMP and WebP. All frames of a GIF or WebP count: these are
    unpacked, though only the first is used. `SCANS` scans of a JPEG are free, more
    count as its pixels do, and so does what a PNG unpacks beyond its pixels. JPEG XL,
    whose header is hard to read, is refused, and so are BMPs that TensorFlow misreads.

    Args:
        data: The encoded file.
        limit: Number of pixels above which counting may stop.

    Returns:
        Number of pixels; `None` for bytes that are no image.

    Raises:
        ValueError: If the header is damaged, or the image is refused.
    """
    read = _reader(data)
    if read is None:
        return None
    try:
        return read(data, limit)
    except (struct.error, IndexError, zlib.error) as error:
        raise ValueError(DAMAGED) from error


def _reader(data):
    """The parser of a format, by the first bytes that TensorFlow knows it by."""
    if data[:3] == b"\xff\xd8\xff":
        return _jpeg
    if data[:4] == b"\x89PNG":
        return _png
    if data[:4] == b"GIF8":
        return _gif
    if data[:2] == b"BM" and data[15:18] == b"\0\0\0":
        return _bmp
    if data[:2] == b"\xff\x0a" or data[:12] == b"\0\0\0\x0cJXL \r\n\x87\n":
        raise Refused("expected JPEG, PNG, GIF, BMP or WebP. Received: JPEG XL")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp
    return None


def _parts(data):
    """Counts the parts of a file, whose number its length bounds."""
    yield from range(10_000 + len(data) // 64)
    raise ValueError(DAMAGED)


def _png(data, limit):
    if data[12:16] != b"IHDR":
        raise ValueError(DAMAGED)
    width, height, depth, kind = struct.unpack_from(">IIBB", data, 16)
    bits = depth * {2: 3, 4: 2, 6: 4}.get(kind, 1)
    # Twice, since an interlaced image has more rows.
    expected = 2 * height * (width * bits // 8 + 2)
    packed = []
    position, parts = 8, _parts(data)
    while position + 8 <= len(data):
        next(parts)
        size, name = struct.unpack_from(">I4s", data, position)
        if name in (b"IDAT", b"zTXt", b"iTXt", b"iCCP"):
            packed.append((name, memoryview(data)[position + 8 : position + 8 + size]))
        position += 12 + size
    beyond = 0
    if DEFLATE * sum(len(part) for _, part in packed) > expected + UNCOUNTED:
        most = expected + 4 * limit
        beyond = max(0, _unpacked(packed, most) - expected)
    return width * height + beyond // 4


def _unpacked(packed, most):
    """Bytes that the compressed chunks of a PNG unpack to, up to about `most`."""
    total, image = 0, zlib.decompressobj()
    for name, data in packed:
        stream = image
        if name != b"IDAT":
            stream, data = zlib.decompressobj(), _text_stream(name, bytes(data))
        try:
            while data and not stream.eof and total <= most:
                total += len(stream.decompress(data, PIECE))
                data = stream.unconsumed_tail
        except zlib.error:
            if name == b"IDAT":  # The decoder ends there too.
                break
    return total


def _text_stream(name, data):
    """The compressed part of a chunk of text or of a profile."""
    rest = data.partition(b"\0")[2]
    if name != b"iTXt":
        return rest[1:]
    # Language and translated keyword stand before the text.
    return rest[2:].split(b"\0", 2)[-1] if rest[:1] == b"\1" else b""


def _jpeg(data, limit):
    """Goes through the markers as libjpeg does."""
    position = 2
    pixels = scans = components = 0
    progressive = False
    parts = _parts(data)
    while pixels * scans <= SCANS * limit and (found := MARKER.search(data, position)):
        next(parts)
        marker, position = data[found.end() - 1], found.end()
        if marker == 0xD9:
            break
        if marker in (0x01, 0xD8):
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width, components = struct.unpack_from(">HHB", data, position + 3)
            pixels = max(pixels, width * height)
            progressive = marker & 3 == 2
        elif marker == 0xDA:
            if not pixels:
                raise ValueError(DAMAGED)
            scans += 1
            if not progressive and data[position + 2] == components:
                break  # The only scan of its image.
        position += struct.unpack_from(">H", data, position)[0]
    if not pixels:
        raise ValueError(DAMAGED)
    return pixels * max(SCANS, scans) // SCANS


def _bmp(data, limit):
    """Refuses what TensorFlow takes for grey values or for another order of colours."""
    size, width, height, _, bits, packing = struct.unpack_from("<IiiHHI", data, 14)
    if size < 40:
        raise Refused("a BMP of OS/2. Save it as PNG")
    if bits <= 8:
        colours = struct.unpack_from("<I", data, 46)[0] or 2**bits
        table = data[14 + size : 14 + size + 4 * min(colours, 256)]
        grey = all(
            table[4 * value : 4 * value + 3] == bytes([value] * 3)
            for value in range(len(table) // 4)
        )
        if bits < 8 or packing or not grey:
            raise Refused("a BMP with a palette. Save it as PNG")
    masks = data[54:66] if packing in (3, 6) else BGR
    if packing not in (0, 3, 6) or bits == 32 and masks != BGR:
        raise Refused("a BMP with unusual colours. Save it as PNG")
    return abs(width * height)


def _gif(data, limit):
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + _colours(flags)
    pixels = frames = 0
    parts = _parts(data)
    # Data that ends early is left to the decoder, which keeps what it has read.
    while position < len(data) and data[position] in (0x21, 0x2C):
        if data[position] == 0x21:
            position += 2
        else:
            size = struct.unpack_from("<HHB", data, position + 5)
            pixels += max(64, size[0] * size[1])
            frames += 1
            position += 11 + _colours(size[2])
        while position < len(data) and data[position]:
            next(parts)
            position += 1 + data[position]
        position += 1
    if not frames:
        raise ValueError(DAMAGED)
    return max(pixels, width * height)


def _colours(flags):
    """Size of a colour table in bytes."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _webp(data, limit):
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return (width & 0x3FFF) * (height & 0x3FFF)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return ((bits & 0x3FFF) + 1) * ((bits >> 14 & 0x3FFF) + 1)
    if kind != b"VP8X":
        raise ValueError(DAMAGED)
    low, middle, high = struct.unpack_from("<HHH", data, 24)
    width = (low | (middle & 0xFF) << 16) + 1
    height = (middle >> 8 | high << 8) + 1
    return width * height * max(1, _animation_frames(data))


def _animation_frames(data):
    position, frames = 12, 0
    parts = _parts(data)
    while position + 8 <= len(data):
        next(parts)
        (size,) = struct.unpack_from("<I", data, position + 4)
        frames += data[position : position + 4] == b"ANMF"
        position += 8 + size + size % 2
    return frames
