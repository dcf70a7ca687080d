"""The same images, and images that look the same."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from keras_attn.pipelines.images.decoding import CorruptImageError
from keras_attn.pipelines.images.duplicates import (
    near_pairs,
    repeated_files,
    same_pixels,
    see,
    seen_of,
)
from keras_attn.pipelines.images.source import Source


def scene(seed, side=96):
    """Smooth random colours, as photographs have them."""
    pixels = np.random.default_rng(seed).integers(0, 256, (7, 9, 3)).astype("uint8")
    return Image.fromarray(pixels).resize((side + 20, side), Image.Resampling.BICUBIC)


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def source_of(files):
    return Source(
        "folder",
        ("a",),
        np.zeros(len(files), "int32"),
        files=tuple(map(str, range(len(files)))),
        read=files.__getitem__,
        stamp=lambda index: (len(files[index]), ""),
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.resize((40, 30)),
        lambda image: Image.open(io.BytesIO(encoded(image, "JPEG", quality=20))),
        lambda image: ImageEnhance.Brightness(image).enhance(1.2),
        lambda image: image.convert("L"),
        lambda image: image.crop((2, 2, image.width - 2, image.height - 2)),
    ],
    ids=["smaller", "jpeg", "brighter", "grey", "cut"],
)
def test_a_changed_image_is_near_and_others_are_not(change):
    images = [scene(seed) for seed in range(40)]
    images.insert(7, change(images[3]).convert("RGB"))
    seen = [seen_of(np.asarray(image)) for image in images]
    assert near_pairs(seen) == [(3, 7)] and same_pixels(seen) == []


def test_plain_and_mirrored_images_are_not_near():
    image = scene(0)
    mirrored = ImageOps.mirror(image)
    plain = [Image.new("RGB", (20, 20), (level, 9, 9)) for level in (0, 1, 200)]
    seen = [seen_of(np.asarray(each)) for each in (image, mirrored, *plain)]
    assert near_pairs(seen) == []


def test_what_is_seen_of_files():
    image = scene(1)
    exif = image.getexif()
    exif[274] = 6
    turned = encoded(image.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    tiff = encoded(image, "TIFF", exif=exif)
    grey = encoded(image.convert("L"), "JPEG")
    done = []
    source = source_of([encoded(image, "PNG"), turned, grey, tiff, b"no image"])
    seen = see(source, lambda *counts: done.append(counts))
    assert done[-1] == (5, 5)
    assert isinstance(seen.pop(), CorruptImageError)
    assert [each.orientation for each in seen] == [1, 6, 1, 6]
    assert [each.mode for each in seen] == ["PNG RGB", "PNG RGB", "JPEG L", "TIFF RGB"]
    assert [each.size for each in seen] == [(96, 116)] * 3 + [(116, 96)]
    # The pixels count, not the bytes.
    assert same_pixels(seen) == [[0, 1]]


def test_only_files_of_one_size_in_two_parts_are_read():
    files = [b"one", b"two", b"one", b"three", b"other", b"four."]
    source, read = source_of(files), []
    object.__setattr__(source, "read", lambda i: read.append(i) or files[i])
    parts = dict.fromkeys(source.files, "train") | {"2": "test"}
    assert repeated_files(source, parts) == [[0, 2]]
    assert read == [0, 1, 2]
