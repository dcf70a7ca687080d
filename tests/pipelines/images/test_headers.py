"""Headers of images against Pillow, of small bombs and of damaged files."""

import io
import random
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image, features

from keras_attn.pipelines.images.headers import decoded_pixels, header_problem

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
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(png_chunk, *zip(*chunks, strict=True)))


def png_chunk(name, data):
    checksum = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + checksum


def long_png(size):
    """A PNG of 2 x 2 pixels with more bytes behind them."""
    return png_header(2, 2).replace(
        png_chunk(b"IDAT", zlib.compress(bytes(1000))),
        png_chunk(b"IDAT", zlib.compress(bytes(size), 9)),
    )


def many_scans(scans, side=200):
    """A progressive JPEG whose last scan is repeated up to that number of scans."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (120, 90, 30)).save(file, "JPEG", progressive=True)
    *first, last = file.getvalue()[:-2].split(b"\xff\xda")
    last = b"\xff\xda" + last
    return b"\xff\xda".join(first) + last * (scans - len(first) + 1) + b"\xff\xd9"


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


def test_scans_of_a_jpeg_count():
    assert decoded_pixels(many_scans(10)) == 200 * 200
    assert decoded_pixels(many_scans(160)) == 10 * 200 * 200
    with Image.open(io.BytesIO(many_scans(160))) as image:
        image.load()
    assert header_problem(many_scans(160)) is None
    assert "scans" in header_problem(many_scans(2_000, side=1_000))


def test_what_a_png_unpacks_beyond_its_pixels_counts():
    limit = 10**7
    assert decoded_pixels(long_png(10**6), limit) == 4
    assert decoded_pixels(long_png(2 * 10**8), limit) > limit
    packed = zlib.compress(bytes(7 * 10**6), 9)
    for chunk in (
        png_chunk(b"zTXt", b"a\0\0" + packed),
        png_chunk(b"iCCP", b"a\0\0" + packed),
        png_chunk(b"iTXt", b"a\0\1\0en\0b\0" + packed),
    ):
        small = png_header(2, 2)
        assert decoded_pixels(small[:33] + 20 * chunk + small[33:], limit) > limit
    noise = np.random.default_rng(0).integers(0, 255, (400, 500, 3), "uint8")
    assert decoded_pixels(file_of("PNG", noise)) == 400 * 500


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + b"\xff\xfe\0\2" * 500_000,
        png_header(2, 2)[:33] + png_chunk(b"teXt", b"") * 300_000,
        b"GIF89a\1\0\1\0\0\0\0\x21\xf9" + b"\1a" * 500_000,
    ],
    ids=["JPEG", "PNG", "GIF"],
)
def test_many_tiny_parts_are_refused_before_pillow_reads_them(data):
    start = time.process_time()
    assert "damaged" in header_problem(data)
    assert time.process_time() - start < 0.5


def test_bmps_that_tensorflow_misreads_are_refused():
    white = Image.new("P", (8, 8), 1)
    white.putpalette([0, 0, 0, 255, 255, 255] + [0] * 762)
    for image in (white, Image.new("1", (8, 8))):
        file = io.BytesIO()
        image.save(file, "BMP")
        with pytest.raises(ValueError, match="palette"):
            decoded_pixels(file.getvalue())
    grey, colours = file_of("BMP", NOISE[..., 0]), file_of("BMP")
    assert decoded_pixels(grey) == decoded_pixels(colours) == 31 * 53
    assert header_problem(grey) is None and header_problem(colours) is None
    masks = bytearray(colours)
    masks[30] = 1
    with pytest.raises(ValueError, match="colours"):
        decoded_pixels(bytes(masks))


def test_other_strings_pass():
    for data in (b"", b"BMW", b"BM" + b"text" * 9, b"RIFF", b"text", bytes(100)):
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
