"""Untrusted images: checked before they are decoded, kept for a while."""

import base64
import collections
import dataclasses
import io
import threading

import numpy as np
from PIL import Image

from keras_attn.pipelines.files import digest_of
from keras_attn.pipelines.images import decoding, headers
from keras_attn.preprocessing import ImagePreprocessing

MAX_BYTES = 20 * 2**20
MAX_PIXELS = 50_000_000
KEPT_BYTES = 128 * 2**20
THUMBNAIL = 160


class UploadError(ValueError):
    """An upload that cannot be used; the message is for the one who sent it."""


@dataclasses.dataclass(frozen=True)
class Upload:
    """An encoded image whose header is good.

    Args:
        data: The encoded file.
        name: Its name.
        notes: Sentences on the parts of it that are not used.
    """

    data: bytes
    name: str
    notes: tuple = ()

    @property
    def token(self):
        """A name that only this content has."""
        content = self.name.encode() + b"\0" + self.data
        return digest_of(content)[:32]

    def pixels(self, spec):
        """`(1, height, width, 3)` 8-bit, fitted to a model as `predict` fits files.

        Raises:
            UploadError: If the file is damaged behind its header.
        """
        images, _, problems = decoding.decode_files(
            lambda index: self.data,
            [self.name],
            (spec.height, spec.width),
            ImagePreprocessing(spec).fit_size,
        )
        if problems:
            raise UploadError(f"{problems[0]}.")
        return images


def check_upload(data, name):
    """The `Upload` of an encoded file, seen from its size and header alone.

    Raises:
        UploadError: If it is empty, too large, or no image.
    """
    name = _short_name(name)
    if not data:
        raise UploadError(f"{name}: the file is empty. Choose an image.")
    if len(data) > MAX_BYTES:
        raise UploadError(f"{name}: larger than {MAX_BYTES // 2**20} MB.")
    reason = headers.header_problem(data)
    if reason is not None:
        raise UploadError(f"{name}: {reason}.")
    height, width = decoding.image_size(data, name)
    try:
        pixels = headers.decoded_pixels(data) or height * width
    except ValueError as error:
        raise UploadError(f"{name}: {error}.") from error
    if pixels > MAX_PIXELS:
        size = f"{width} x {height} pixels"
        if pixels > height * width:
            size = f"{pixels} pixels in frames, scans or data"
        raise UploadError(
            f"{name}: {size}, larger than {MAX_PIXELS // 10**6} megapixels."
        )
    return Upload(data, name, _notes(data))


def _notes(data):
    notes = []
    with headers.open_header(data) as image:
        if image.has_transparency_data:
            notes.append("Transparency is dropped, as in training.")
        try:
            if getattr(image, "is_animated", False):
                notes.append("Of an animated picture only the first frame is used.")
        except Exception:  # As in `header_problem`. Decoding reports the damage.
            pass
    return tuple(notes)


def _short_name(name):
    """The last part of a file's name, without what cannot be printed."""
    name = "".join(letter for letter in str(name or "") if letter.isprintable())
    name = name.replace("\\", "/").rsplit("/", 1)[-1].strip()
    return (name if len(name) <= 60 else f"{name[:57]}...") or "image"


class UploadStore:
    """The last uploads, by their token; the oldest go when they become too many."""

    def __init__(self, kept_bytes=KEPT_BYTES):
        self.kept_bytes = kept_bytes
        self._uploads = collections.OrderedDict()
        self._lock = threading.Lock()

    def add(self, upload):
        """Keeps an upload and gives its token."""
        token = upload.token
        with self._lock:
            self._uploads[token] = upload
            self._uploads.move_to_end(token)
            total = sum(len(each.data) for each in self._uploads.values())
            while total > self.kept_bytes and len(self._uploads) > 1:
                total -= len(self._uploads.popitem(last=False)[1].data)
        return token

    def get(self, token):
        """The upload.

        Raises:
            UploadError: If it is not kept any more.
        """
        with self._lock:
            if token not in self._uploads:
                raise UploadError("That image is not kept any more. Choose it again.")
            self._uploads.move_to_end(token)
            return self._uploads[token]


# ---- pictures on the page ------------------------------------------------------------


def png(pixels):
    """8-bit pixels as an encoded PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels, "uint8")).save(buffer, "PNG")
    return buffer.getvalue()


def data_address(encoded):
    """An encoded PNG as an address that needs no further request."""
    return f"data:image/png;base64,{base64.b64encode(encoded).decode()}"


def thumbnail(data, name):
    """A small picture of an encoded image as an encoded PNG, or `None` if damaged."""
    try:
        image = Image.fromarray(decoding.decode_image(data, name))
    except decoding.CorruptImageError:
        return None
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return png(image)
