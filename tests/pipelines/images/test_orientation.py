"""EXIF orientation against Pillow's `exif_transpose`."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from keras_attn.pipelines.images.decoding import decode_files, decode_image, image_size
from keras_attn.pipelines.images.orientation import (
    orientation_of,
    read_orientation,
    turned_box,
    turned_size,
)
from keras_attn.pipelines.images.source import Source

HEIGHT, WIDTH = 30, 44
LOSSLESS = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100}}


def encoded(image_format, orientation, endian="<"):
    """Colours that differ in every corner, with an EXIF of several tags."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.stack([8 * y, 5 * x, 3 * (x + y)], axis=-1).astype("uint8")
    exif = Image.Exif()
    exif.endian = endian
    exif[0x010F], exif[0x0112], exif[0x0131] = "maker", orientation, "software"
    Image.init()
    if image_format not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {image_format}")
    buffer = io.BytesIO()
    options = LOSSLESS.get(image_format, {})
    Image.fromarray(pixels).save(buffer, image_format, exif=exif, **options)
    return buffer.getvalue()


def upright(data):
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_pillow_does(image_format, orientation, tmp_path):
    data = encoded(image_format, orientation)
    expected = upright(data)
    (images, *_) = decode_files([data].__getitem__, ["x"], expected.shape[:2])
    for image in (decode_image(data, "x"), images[0]):
        assert image.shape == expected.shape
        np.testing.assert_allclose(image.astype(int), expected, atol=4)
    (tmp_path / "x").write_bytes(data)
    for file in (data, str(tmp_path / "x")):
        assert image_size(file, "x") == expected.shape[:2]


@pytest.mark.parametrize("endian", "<>")
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_the_tag_in_either_byte_order(image_format, endian):
    data = encoded(image_format, 6, endian)
    order = b"II*\0" if endian == "<" else b"MM\0*"
    assert order in data
    assert orientation_of(data) == 6


def test_numbers_of_four_bytes_and_values_out_of_range():
    data = encoded("JPEG", 6)
    short = b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"
    for field, expected in (
        (b"\x12\x01\x04\0\x01\0\0\0\x08\0\0\0", 8),
        (b"\x12\x01\x03\0\x01\0\0\0\x09\0\0\0", 1),
        (b"\x12\x01\x03\0\x01\0\0\0\0\0\0\0", 1),
        (b"\x12\x01\x02\0\x01\0\0\0\x06\0\0\0", 1),
    ):
        assert short in data
        assert orientation_of(data.replace(short, field)) == expected


def test_behind_other_segments_and_in_damaged_files():
    data = encoded("JPEG", 5)
    comment = b"\xff\xfe\x01\0" + b"Exif" + bytes(250)
    moved = data[:2] + comment + b"\xff\xff" + data[2:]
    assert orientation_of(moved) == 5
    generator = np.random.default_rng(0)
    for image_format in ("JPEG", "PNG", "WEBP"):
        data = encoded(image_format, 6)
        for _ in range(100):
            wrong = bytearray(data)
            for place in generator.integers(0, min(len(data), 200), 4):
                wrong[place] = generator.integers(256)
            wrong = bytes(wrong[: generator.integers(len(data))])
            assert 1 <= int(read_orientation(tf.constant(wrong))) <= 8
    assert orientation_of(b"") == orientation_of(b"Exif") == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_with_their_images(orientation):
    box, size = (3, 5, 10, 30), (HEIGHT, WIDTH)
    stored = np.zeros((*size, 1), "uint8")
    stored[3:10, 5:30] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(np.repeat(stored, 3, -1)).save(buffer, "PNG", exif=exif)
    rows, columns = np.nonzero(upright(buffer.getvalue())[..., 0])
    expected = (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
    assert turned_box(box, size, orientation) == expected
    source = Source(
        name="x",
        class_names=("a",),
        labels=np.zeros(2, "int32"),
        read=lambda index: buffer.getvalue(),
        annotations={"box": np.array([box, (-1,) * 4], "int32")},
    ).with_boxes_in_images()
    assert tuple(source.annotations["box"][0]) == expected
    assert source.annotations["box"][1].tolist() == [-1] * 4
    assert tuple(source.annotations["size"][0]) == turned_size(size, orientation)
