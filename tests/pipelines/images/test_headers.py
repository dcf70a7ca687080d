"""Headers of images against Pillow, of small bombs and of damaged files."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, features

from keras_attn.pipelines.images.headers import decoded_pixels

NOISE = np.random.default_rng(0).integers(0, 255, (31, 53, 3), "uint8")

OPTIONS = {
    "baseline": ("JPEG", {}),
    "progressive": ("JPEG", {"progressive": True, "subsampling": 0}),
    "exif": ("JPEG", {"exif": b"Exif\0\0" + bytes(range(256)) * 9, "comment": "\xff"}),
    "png": ("PNG", {}),
    "gif": ("GIF", {}),
    "webp": ("WEBP", {}),
    "lossless": ("WEBP", {"lossless": True}),
    "webp exif": ("WEBP", {"exif": b"Exif\0\0MM"}),
}


def file_of(kind, pixels=NOISE, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def png_header(width, height):
    """A PNG of few bytes that would decode to any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(data))
        for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("name", OPTIONS)
def test_pixels_as_pillow_counts_them(name):
    kind, options = OPTIONS[name]
    if kind == "WEBP" and not features.check("webp"):
        pytest.skip("Pillow was built without WebP")
    data = file_of(kind, **options)
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
    assert decoded_pixels(data) == width * height == 31 * 53


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_all_frames_are_counted(kind):
    if kind == "WEBP" and not features.check("webp"):
        pytest.skip("Pillow was built without WebP")
    frames = [Image.fromarray(np.roll(NOISE, k, 0)) for k in range(4)]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    assert decoded_pixels(file.getvalue()) == 4 * 31 * 53


def test_a_frame_of_a_gif_may_be_larger_than_its_screen():
    data = bytearray(file_of("GIF"))
    place = data.index(b"\x2c\0\0\0\0")
    data[place + 5 : place + 9] = struct.pack("<HH", 65535, 65535)
    assert decoded_pixels(bytes(data)) == 65535**2


@pytest.mark.parametrize("size", [(65000, 65000), (2**31 - 1, 2**31 - 1)])
def test_a_small_png_that_decodes_to_gigabytes(size):
    assert decoded_pixels(png_header(*size)) == size[0] * size[1]


def test_other_strings_pass():
    for data in (b"", b"BMW", b"RIFF", b"text", bytes(100)):
        assert decoded_pixels(data) is None


@pytest.mark.parametrize(
    "data", [b"\xff\x0a\xfa\x7f", bytes.fromhex("0000000c4a584c200d0a870a")]
)
def test_jpeg_xl_is_refused(data):
    with pytest.raises(ValueError, match="JPEG XL"):
        decoded_pixels(data)


@pytest.mark.parametrize("name", ["exif", "png", "gif", "webp", "lossless"])
def test_damaged_files_are_refused_or_read_but_never_crash(name):
    kind, options = OPTIONS[name]
    if kind == "WEBP" and not features.check("webp"):
        pytest.skip("Pillow was built without WebP")
    data = file_of(kind, **options)
    generator = random.Random(0)
    refused = 0
    for _ in range(300):
        broken = bytearray(data[: generator.randrange(4, len(data))])
        for _ in range(3):
            broken[generator.randrange(len(broken))] = generator.randrange(256)
        try:
            assert (decoded_pixels(bytes(broken)) or 0) >= 0
        except ValueError:
            refused += 1
    assert refused
