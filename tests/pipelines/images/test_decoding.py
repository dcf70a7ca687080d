"""Decoding against Pillow, and every way a file can be broken."""

import io

import numpy as np
import pytest
from PIL import Image

from keras_attn.pipelines.images.decoding import (
    CorruptImageError,
    decode_files,
    decode_image,
    image_size,
)
from keras_attn.pipelines.images.headers import header_problem

HEIGHT, WIDTH = 31, 47


def picture():
    """Smooth colours, as JPEG likes them; height and width differ."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    planes = [128 + 100 * np.sin(y / 7), 4 * x + 20, 128 + 90 * np.cos((x + y) / 9)]
    return Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8))


def encode(image_format, mode="RGB", **options):
    Image.init()
    if image_format not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {image_format}")
    buffer = io.BytesIO()
    picture().convert(mode).save(buffer, image_format, **options)
    return buffer.getvalue()


def pillow(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


@pytest.mark.parametrize(
    "image_format, mode, tolerance",
    [
        ("PNG", "RGB", 0),
        ("PNG", "L", 0),
        ("PNG", "RGBA", 0),
        ("PNG", "P", 0),
        ("PNG", "1", 0),
        ("BMP", "RGB", 0),
        ("BMP", "L", 0),
        ("GIF", "P", 0),
        ("TIFF", "RGB", 0),
        ("TIFF", "P", 0),
        ("TIFF", "CMYK", 0),
        ("AVIF", "RGB", 0),
        # Decoders may differ in the rounding of the inverse transform.
        ("JPEG", "RGB", 4),
        ("JPEG", "L", 4),
        ("JPEG", "CMYK", 4),
        ("WEBP", "RGB", 4),
        ("WEBP", "RGBA", 4),
    ],
)
def test_agrees_with_pillow(image_format, mode, tolerance):
    data = encode(image_format, mode)
    image = decode_image(data, "picture")
    assert image.dtype == np.uint8
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(image.astype(int) - pillow(data)).max() <= tolerance


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_sixteen_bit_samples_keep_their_upper_byte(image_format):
    samples = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) * 44).astype(np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(samples).save(buffer, image_format)
    image = decode_image(buffer.getvalue(), "deep")
    np.testing.assert_array_equal(image[..., 1], samples >> 8)


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "TIFF"])
def test_animation_gives_its_first_frame(image_format):
    frames = [Image.new("RGB", (5, 3), color) for color in ("red", "blue")]
    buffer = io.BytesIO()
    options = {"lossless": True} if image_format == "WEBP" else {}
    frames[0].save(
        buffer, image_format, save_all=True, append_images=frames[1:], **options
    )
    image = decode_image(buffer.getvalue(), "moving")
    np.testing.assert_array_equal(image, np.tile(np.uint8([255, 0, 0]), (3, 5, 1)))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "BMP"])
def test_truncated_at_any_place(image_format):
    data = encode(image_format)
    # The last byte of a GIF is a terminator that its decoder does not need.
    last = len(data) - (2 if image_format == "GIF" else 1)
    for cut in (1, 10, len(data) // 4, len(data) // 2, len(data) - 20, last):
        with pytest.raises(CorruptImageError, match="photos/broken: "):
            decode_image(data[:cut], "photos/broken")


def test_truncated_progressive_jpeg():
    data = encode("JPEG", progressive=True)
    for cut in (len(data) // 2, len(data) - 1):
        with pytest.raises(CorruptImageError, match="truncated or damaged"):
            decode_image(data[:cut], "broken.jpg")


def test_damage_inside_a_png_is_seen():
    data = bytearray(encode("PNG"))
    data[len(data) // 2] ^= 255
    with pytest.raises(CorruptImageError, match="truncated or damaged"):
        decode_image(bytes(data), "broken.png")


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "the file is empty"),
        (b"<html>not found</html>", "not an image"),
        (bytes(100), "not an image"),
        (encode("ICO"), "Expected JPEG, PNG, GIF, BMP, WEBP, TIFF, AVIF"),
        (b"\0\0\0\x18ftypheic" + bytes(16), "a HEIC.*Save it as JPEG"),
        (encode("TIFF", "F"), "32-bit samples"),
        (encode("TIFF")[:2000], "truncated or damaged"),
        (encode("BMP", "P"), "BMP with a palette"),
        (encode("BMP", "1"), "BMP with a palette"),
    ],
)
def test_not_an_image(data, reason):
    with pytest.raises(CorruptImageError, match=f"^somewhere: .*{reason}") as caught:
        decode_image(data, "somewhere")
    assert caught.value.where == "somewhere"


@pytest.mark.parametrize("height, refused", [(10_001, True), (10_000, False)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_huge_images_are_refused_by_their_header(height, refused):
    # A GIF header is ten bytes and names the size; no pixels need to be there.
    buffer = io.BytesIO()
    Image.new("P", (1, 1)).save(buffer, "GIF")
    data = bytearray(buffer.getvalue())
    data[6:10] = (10_000).to_bytes(2, "little") + height.to_bytes(2, "little")
    problem = header_problem(bytes(data))
    assert (problem is not None) == refused
    if refused:
        assert "larger than 100 megapixels" in problem


def test_even_larger_images_are_refused_too():
    buffer = io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(buffer, "PNG")
    with pytest.raises(CorruptImageError, match="big: larger than 100 megapixels"):
        decode_image(buffer.getvalue(), "big")


def test_decode_files_keeps_order_and_lists_failures(monkeypatch):
    monkeypatch.setattr("keras_attn.pipelines.images.decoding.CHUNK", 3)
    good = [encode("PNG"), encode("JPEG"), encode("PNG", "L")]
    files = [good[0], b"", good[1], good[1][:300], good[2], None, b"text", good[0]]

    def read(index):
        if files[index] is None:
            raise PermissionError(13, "Permission denied")
        return files[index]

    done = []
    images, kept, problems = decode_files(
        read,
        [f"f{i}" for i in range(8)],
        (HEIGHT, WIDTH),
        progress=lambda *counts: done.append(counts),
    )
    assert kept.tolist() == [0, 2, 4, 7]
    assert images.shape == (4, HEIGHT, WIDTH, 3)
    for image, index in zip(images, kept, strict=True):
        np.testing.assert_array_equal(image, decode_image(files[index], "again"))
    assert [p.where for p in problems] == ["f1", "f3", "f5", "f6"]
    assert "Permission denied" in problems[2].reason
    assert done == sorted(done) and done[-1] == (8, 8) and len(done) > 3


def test_decode_files_fits_only_what_has_another_size():
    half = io.BytesIO()
    picture().resize((20, 10)).save(half, "PNG")
    files = [encode("PNG"), half.getvalue()]
    images, _, _ = decode_files(
        files.__getitem__, ["a", "b"], (10, 20), fit=lambda image: image[:10, :20] + 1
    )
    np.testing.assert_array_equal(images[0], pillow(files[0])[:10, :20] + 1)
    np.testing.assert_array_equal(images[1], pillow(files[1]))


def test_an_error_of_the_fitting_is_not_blamed_on_the_file():
    files = [encode("PNG")]
    with pytest.raises(Exception, match="(?i)shape|compatible") as caught:
        decode_files(files.__getitem__, ["a"], (10, 20), fit=lambda image: image)
    assert not isinstance(caught.value, CorruptImageError)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "GIF", "BMP"])
def test_the_size_is_in_the_header(tmp_path, image_format):
    data = encode(image_format, "P" if image_format == "GIF" else "RGB")
    (tmp_path / "picture").write_bytes(data)
    for file in (data, str(tmp_path / "picture")):
        assert image_size(file, "picture") == (HEIGHT, WIDTH)
        assert image_size(file, "picture", banner=20) == (HEIGHT - 20, WIDTH)


def test_sizes_of_what_is_no_image(tmp_path):
    for file in (b"", b"text", encode("PNG")[:20]):
        with pytest.raises(CorruptImageError, match="x.jpg: not an image.*JPEG"):
            image_size(file, "x.jpg")
    with pytest.raises(CorruptImageError, match="x.jpg: cannot be read .No such file"):
        image_size(str(tmp_path / "nothing"), "x.jpg")
    with pytest.raises(CorruptImageError, match="x.jpg: 31 rows.*the banner's 31"):
        image_size(encode("PNG"), "x.jpg", banner=HEIGHT)


def test_a_banner_is_cut_off_before_anything_else():
    files = [encode("PNG"), encode("PNG", "L")]
    for file in files:
        image = decode_image(file, "picture", banner=5)
        np.testing.assert_array_equal(image, pillow(file)[:-5])

    def fit(image):
        return image[:10, :20]

    # As large as the network's images only with its banner.
    size = (HEIGHT, WIDTH)
    with pytest.raises(Exception, match="(?i)shape|compatible"):
        decode_files(files.__getitem__, ["a", "b"], size, lambda i: i, banner=5)
    images, _, _ = decode_files(files.__getitem__, ["a", "b"], (10, 20), fit, banner=5)
    np.testing.assert_array_equal(images[1], pillow(files[1])[:10, :20])
    for banner in (HEIGHT, HEIGHT + 1, HEIGHT + 20):
        _, kept, problems = decode_files(
            files.__getitem__, ["a", "b"], (10, 20), fit, banner=banner
        )
        assert not len(kept) and "banner" in problems[1].reason
