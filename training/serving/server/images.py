"""Limits of encoded images in requests, checked before they are decoded."""

from keras_attn.pipelines.images.headers import (
    FORMATS,
    decoded_pixels,
    format_to_convert,
)
from keras_attn.training.serving.server.errors import invalid

# All images of a batch together may have this many times the limit of one.
TOGETHER = 8


def check_images(values, max_pixels):
    """Checks encoded images; other strings pass.

    Args:
        values: Iterable of bytes.
        max_pixels: Limit of one image; together they may have `TOGETHER` times as many.

    Returns:
        Pixels of all images together.

    Raises:
        ServingError: For other formats, a damaged header, and too many pixels.
    """
    total = 0
    for index, data in enumerate(values):
        if kind := format_to_convert(data):
            raise invalid(
                f"Image {index}: expected {', '.join(FORMATS)}. Received: {kind}"
            )
        try:
            pixels = decoded_pixels(data, max_pixels) or 0
        except ValueError as error:
            raise invalid(f"Image {index}: {error}") from error
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
