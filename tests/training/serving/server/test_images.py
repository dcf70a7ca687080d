import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, features

from keras_attn.training.serving.server.errors import ServingError
from keras_attn.training.serving.server.images import TOGETHER, check_images

LIMIT = 10_000
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
    assert check_images([data, data], LIMIT) == 2 * width * height == 2 * 31 * 53


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_all_frames_are_counted(kind):
    if kind == "WEBP" and not features.check("webp"):
        pytest.skip("Pillow was built without WebP")
    frames = [Image.fromarray(np.roll(NOISE, k, 0)) for k in range(4)]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    assert check_images([file.getvalue()], LIMIT) == 4 * 31 * 53


def test_a_frame_of_a_gif_may_be_larger_than_its_screen():
    data = bytearray(file_of("GIF"))
    place = data.index(b"\x2c\0\0\0\0")
    data[place + 5 : place + 9] = struct.pack("<HH", 65535, 65535)
    with pytest.raises(ServingError, match="Received: 4294836225"):
        check_images([bytes(data)], LIMIT)


@pytest.mark.parametrize("size", [(65000, 65000), (2**31 - 1, 2**31 - 1)])
def test_a_small_png_that_decodes_to_gigabytes(size):
    with pytest.raises(ServingError, match="Image 1: expected at most 10000") as caught:
        check_images([file_of("PNG"), png_header(*size)], LIMIT)
    assert caught.value.http_status == 400


def test_the_limit_is_of_pixels():
    assert check_images([png_header(100, 100)], LIMIT) == LIMIT
    with pytest.raises(ServingError):
        check_images([png_header(100, 101)], LIMIT)


def test_all_images_together_are_limited():
    image = png_header(100, 100)
    assert check_images([image] * TOGETHER, LIMIT) == TOGETHER * LIMIT
    with pytest.raises(ServingError, match="together"):
        check_images([image] * TOGETHER + [png_header(1, 1)], LIMIT)


def test_other_strings_pass():
    assert check_images([b"", b"BMW", b"RIFF", b"text", bytes(100)], LIMIT) == 0


@pytest.mark.parametrize(
    "data", [b"\xff\x0a\xfa\x7f", bytes.fromhex("0000000c4a584c200d0a870a")]
)
def test_jpeg_xl_is_refused(data):
    with pytest.raises(ServingError, match="JPEG XL"):
        check_images([data], LIMIT)


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
            assert check_images([bytes(broken)], LIMIT) >= 0
        except ServingError:
            refused += 1
    assert refused
