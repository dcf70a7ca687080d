"""Malformed and unusual image files, the same ones for a seed.

`python -m tests.pipelines.images.malformed_images --count 1000` decodes that many and
prints what became of them; `tests.training.malformed_images` sends them through the
commands.
"""

import argparse
import collections
import io
import random
import time

import numpy as np
from PIL import Image, ImageFile, ImageOps

from keras_attn.pipelines.images.decoding import CorruptImageError, decode_image
from tests.pipelines.images.test_headers import long_png, many_scans, png_header

SUFFIX = {"JPEG": ".jpg", "PNG": ".png", "GIF": ".gif", "BMP": ".bmp", "WEBP": ".webp"}
# Mean difference of two decoders of lossy files.
TOLERANCE = 6


def picture(draw, mode="RGB"):
    """A smooth picture, so that decoders differ little."""
    noise = np.random.default_rng(draw.getrandbits(32)).integers(0, 256, (3, 3, 3))
    small = Image.fromarray(noise.astype("uint8"))
    size = draw.randint(17, 80), draw.randint(17, 80)
    return small.resize(size, Image.Resampling.BICUBIC).convert(mode)


def saved(image, kind, **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def plain(draw):
    kind = draw.choice(tuple(SUFFIX))
    return SUFFIX[kind], saved(picture(draw), kind)


def truncated(draw):
    suffix, data = plain(draw)
    return suffix, data[: draw.randrange(1, len(data))]


def wrong_extension(draw):
    return draw.choice(tuple(SUFFIX.values())), plain(draw)[1]


def zeros(draw):
    return draw.choice(tuple(SUFFIX.values())), bytes(draw.choice((0, 1, 999)))


def hole(draw):
    suffix, data = plain(draw)
    start = draw.randrange(len(data))
    length = min(len(data) - start, draw.randint(1, 200))
    return suffix, data[:start] + bytes(length) + data[start + length :]


def bit_flips(draw):
    suffix, data = plain(draw)
    data = bytearray(data)
    for _ in range(draw.choice((1, 4, 30))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return suffix, bytes(data)


def text(draw):
    return draw.choice((".jpg", ".png")), b"<html>404 Not Found</html>" * 9


def trailing(draw):
    suffix, data = plain(draw)
    return suffix, data + draw.randbytes(draw.randint(1, 500))


def two_files(draw):
    return ".jpg", saved(picture(draw), "JPEG") + plain(draw)[1]


def huge_header(draw):
    return ".png", png_header(draw.choice((10**5, 2**31 - 1)), 10**5)


def bombs(draw):
    if draw.random() < 0.5:
        return ".png", long_png(draw.choice((10**4, 3 * 10**7)))
    return ".jpg", many_scans(draw.choice((20, 400)))


def cmyk(draw):
    return ".jpg", saved(picture(draw, "CMYK"), "JPEG")


def sixteen_bit(draw):
    grey = np.asarray(picture(draw, "L")).astype("uint16")
    return ".png", saved(Image.fromarray(grey * 257), "PNG")


def palette(draw):
    kind = draw.choice(("PNG", "GIF", "BMP"))
    return SUFFIX[kind], saved(picture(draw).quantize(draw.choice((2, 16, 256))), kind)


def few_bits(draw):
    kind = draw.choice(("PNG", "BMP"))
    return SUFFIX[kind], saved(picture(draw, draw.choice(("1", "L"))), kind)


def transparent(draw):
    image = picture(draw, draw.choice(("RGBA", "LA")))
    image.putalpha(draw.randrange(256))
    return ".png", saved(image, "PNG")


def animated(draw):
    kind = draw.choice(("GIF", "WEBP", "PNG"))
    first = picture(draw)
    others = [picture(draw).resize(first.size) for _ in range(3)]
    return SUFFIX[kind], saved(first, kind, save_all=True, append_images=others)


def rotated(draw):
    image = picture(draw)
    exif = image.getexif()
    exif[274] = draw.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 9))
    kind = draw.choice(("JPEG", "PNG", "WEBP"))
    return SUFFIX[kind], saved(image, kind, exif=exif)


def progressive(draw):
    options = {"progressive": True, "subsampling": draw.choice((0, 1, 2))}
    return ".jpg", saved(picture(draw), "JPEG", **options)


def tiny_or_long(draw):
    kind = draw.choice(("PNG", "JPEG", "BMP", "GIF"))
    size = draw.choice(((1, 1), (1, 3000), (3000, 1), (2, 1)))
    return SUFFIX[kind], saved(picture(draw).resize(size), kind)


def interlaced(draw):
    """GIFs with the flag, whose rows are then in another order."""
    return ".gif", saved(picture(draw, "L"), "GIF", interlace=draw.choice((0, 1)))


KINDS = (
    *(plain, truncated, wrong_extension, zeros, hole, bit_flips, text, trailing),
    *(two_files, huge_header, bombs, cmyk, sixteen_bit, palette, few_bits),
    *(transparent, animated, rotated, progressive, tiny_or_long, interlaced),
)


def made(count, seed=0):
    """Yields `(kind, suffix, data)` of images."""
    draw = random.Random(seed)
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        yield (kind.__name__, *kind(draw))


def by_pillow(data):
    """Upright RGB pixels of the first frame, or `None` where Pillow refuses."""
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with Image.open(io.BytesIO(data)) as image:
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):
                return np.stack([np.asarray(image) >> 8] * 3, -1).astype("uint8")
            if image.mode in ("LA", "RGBA", "P", "PA"):
                image = image.convert("RGBA")
            return np.asarray(image.convert("RGB"))
    except Exception:
        return None


def judged(data):
    """Result of `decode_image` beside Pillow's."""
    expected = by_pillow(data)
    try:
        found = decode_image(data, "it")
    except CorruptImageError:
        return "refused" if expected is not None else "refused, as by Pillow"
    if expected is None:
        return "read where Pillow refuses"
    if found.shape != expected.shape:
        return "WRONG SHAPE"
    difference = np.abs(found.astype(int) - expected).mean()
    return "agrees" if difference <= TOLERANCE else f"WRONG PIXELS, by {difference:.0f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    files = list(made(options.count, options.seed))
    counts, slowest = collections.Counter(), 0.0
    for kind, _, data in files:
        started = time.perf_counter()
        counts[kind, judged(data)] += 1
        slowest = max(slowest, time.perf_counter() - started)
    for (kind, outcome), count in sorted(counts.items()):
        print(f"{kind:16} {count:4} {outcome}")
    print(f"slowest: {slowest:.2f} s")


if __name__ == "__main__":
    main()
