import numpy as np
import pytest
from PIL import Image

from keras_attn.pipelines.images.files import read_images
from keras_attn.preprocessing import ImageSpec
from keras_attn.training.viewer import uploads
from keras_attn.training.viewer.uploads import (
    UploadError,
    UploadStore,
    check_upload,
    thumbnail,
)
from tests.training import tiny_models as tiny
from tests.training.viewer.tiny import encoded, upload

NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype("uint8")


def gigantic():
    """A PNG whose header alone says 60000 x 60000 pixels."""
    data = bytearray(encoded(NOISE))
    data[16:24] = (60000).to_bytes(4, "big") * 2
    # Pillow checks the header's checksum.
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def test_pixels_are_those_of_predict(tmp_path):
    spec = ImageSpec(11, 13)
    for name, data in {
        "a.png": encoded(NOISE),
        "b.jpg": encoded(NOISE, "JPEG"),
        "grey.png": encoded(NOISE[..., 0]),
        "clear.png": encoded(np.dstack([NOISE, NOISE[..., :1]])),
    }.items():
        (tmp_path / name).write_bytes(data)
        expected, _, _ = read_images([tmp_path / name], spec)
        pixels = check_upload(data, name).pixels(spec)
        np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "file is empty"),
        (b"<svg onload=alert(1)>", "not an image"),
        (gigantic(), "60000 x 60000 pixels, larger|larger than 100 megapixels"),
        (bytes(uploads.MAX_BYTES + 1), "larger than 20 MB"),
    ],
    ids=["empty", "text", "gigantic", "large"],
)
def test_bad_files_get_one_line(data, message):
    with pytest.raises(UploadError, match=message) as caught:
        check_upload(data, "C:\\pictures\\bad\n.png")
    text = str(caught.value)
    assert text.startswith("bad.png: ") and "\n" not in text and len(text) < 200


def test_the_viewer_takes_fewer_pixels_than_training(monkeypatch):
    monkeypatch.setattr(uploads, "MAX_PIXELS", 599)
    with pytest.raises(UploadError, match="30 x 20 pixels, larger"):
        upload(NOISE)


def test_all_frames_of_an_upload_count(monkeypatch):
    monkeypatch.setattr(uploads, "MAX_PIXELS", 1199)
    frames = [Image.fromarray(255 - NOISE)]
    animated = encoded(NOISE, "GIF", save_all=True, append_images=frames)
    with pytest.raises(
        UploadError, match="1200 pixels in frames, scans or data, larger"
    ):
        check_upload(animated, "film.gif")


def test_damage_behind_the_header_is_told():
    cut = check_upload(encoded(NOISE)[:-400], "cut.png")
    with pytest.raises(UploadError, match="^cut.png: truncated or damaged"):
        cut.pixels(ImageSpec(8, 8))
    assert thumbnail(cut.data, cut.name) is None


def test_what_is_not_used_is_told():
    frames = [Image.fromarray(NOISE), Image.fromarray(255 - NOISE)]
    animated = encoded(NOISE, "GIF", save_all=True, append_images=frames[1:])
    (note,) = check_upload(animated, "a.gif").notes
    assert "first frame" in note
    clear = np.dstack([NOISE, NOISE[..., :1]])
    (note,) = check_upload(encoded(clear), "a.png").notes
    assert "Transparency" in note
    assert upload(NOISE).notes == ()


def test_the_oldest_go_when_they_become_too_many():
    images = [upload(tiny.plain_image(red=value)) for value in range(3)]
    store = UploadStore(kept_bytes=sum(len(each.data) for each in images) - 1)
    tokens = [store.add(images[0]), store.add(images[1])]
    store.get(tokens[0])
    tokens.append(store.add(images[2]))
    assert len(set(tokens)) == 3 and store.add(images[2]) == tokens[2]
    assert [store.get(tokens[place]) for place in (0, 2)] == [images[0], images[2]]
    with pytest.raises(UploadError, match="not kept any more"):
        store.get(tokens[1])
