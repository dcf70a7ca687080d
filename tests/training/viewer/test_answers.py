"""Texts and pictures of models whose answers are known."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from keras_attn.training.viewer import sections
from keras_attn.training.viewer.answers import answer
from keras_attn.training.viewer.panels import place, place_at
from tests.training import tiny_models as tiny
from tests.training.viewer.tiny import (
    early_exit,
    masked,
    red_at_the_left,
    shifted,
    softmax,
    upload,
    viewed,
)


def opened(picture):
    kind, encoded = picture.source.split(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
        return np.asarray(image.convert("RGB"))


def sections_of(found):
    return {section.title: section for section in found.sections}


def check_words(section):
    """Every picture has a caption, a description, and is a picture."""
    assert section.title and section.note
    for picture in [*section.pictures, *section.small]:
        assert picture.caption and len(picture.description) > 10
        assert picture.description.endswith(".")
        assert min(opened(picture).shape[:2]) > 50


def test_probabilities_and_class_maps():
    image = np.zeros((16, 24, 3), "uint8")
    image[8:, 16:] = (255, 0, 0)
    image[:8, :16] = (0, 100, 0)
    found = answer(viewed(tiny.colour_model()), upload(image), "colours")
    means = image.mean(axis=(0, 1)) / 255
    expected = softmax(tiny.GAIN * means)
    order = (-expected).argsort()
    assert [name for name, _ in found.classes] == [tiny.COLOURS[i] for i in order]
    np.testing.assert_allclose(
        [probability for _, probability in found.classes], expected[order], rtol=1e-5
    )
    assert found.predicted == "red" and found.model == "colours"
    maps = sections_of(found)["Class-embedding maps"]
    assert [each.caption for each in maps.pictures] == [
        name for name, _ in found.classes
    ]
    assert "red" in maps.pictures[0].description
    assert "lower right with 100.0 %" in maps.pictures[0].description
    assert set(sections_of(found)) == {"Class-embedding maps", "Grad-CAM"}
    for section in found.sections:
        check_words(section)
    # The image is shown as the model gets it, every pixel enlarged by one factor.
    shown = opened(found.image)
    factor = shown.shape[0] // 16
    np.testing.assert_array_equal(shown[::factor, ::factor], image)


def test_patches_and_their_evidence():
    section = sections.patches(viewed(tiny.localizer()), red_at_the_left()[None], [0])
    assert "where the evidence for green is highest" in section.note
    # One with boxes; the evidence and the attention of both branches.
    assert len(section.pictures) == 1 + 2 * len(tiny.WINDOWS)
    assert section.pictures[0].marked and "1 " in section.pictures[0].description
    assert section.small[0].caption.startswith("Patch 1: evidence ")
    check_words(section)


def test_warping_fields():
    image = np.random.default_rng(0).integers(0, 256, (1, 24, 32, 3)).astype("uint8")
    section = sections.warping(viewed(shifted()), image, [0])
    assert [each.caption.split(":")[0] for each in section.pictures] == [
        "The colours of the cells",
        *["Group 1 of 2"] * 2,
        *["Group 2 of 2"] * 2,
    ]
    assert "1.0 cells down and 2.0 to the left" in section.pictures[3].description
    assert section.pictures[3].caption.endswith(f"{5**0.5:.1f} cells")
    check_words(section)


def test_attention_maps_and_masks(monkeypatch):
    monkeypatch.setattr("keras_attn.training.explain.masks.BLOCKS_SHOWN", 1)
    image = np.random.default_rng(0).integers(0, 256, (1, 16, 24, 3)).astype("uint8")
    section = sections.attention_masks(viewed(masked()), image, [0])
    captions = [each.caption for each in section.pictures]
    assert captions[:3] == ["Attention map", "Head 1", "Head 2"]
    assert captions[3].startswith("Mask of block ") and len(captions) == 4
    check_words(section)


def test_models_have_the_sections_of_their_kind_only():
    image = tiny.plain_image()[None]
    plain = viewed(tiny.colour_model(patch_logits=False))
    for make in sections.SECTIONS[:-1]:
        assert make(plain, image, [0]) is None


@pytest.mark.parametrize("thresholds, last", [([0.0] * 3, 0), (None, 3)])
def test_early_exit_steps(thresholds, last):
    model = viewed(early_exit(thresholds))
    image = red_at_the_left()[None]
    section = sections.exit_steps(model, image, [0])
    assert f"after step {last} of 3" in section.note
    assert [row[0] for row in section.rows] == ["0", "1", "2", "3"]
    assert [row[-1] for row in section.rows[: last + 1]] == [
        *["continued"] * last,
        "stopped here",
    ]
    assert all(row[2:] == ("not run", "", "") for row in section.rows[last + 1 :])
    # The last step is the model's answer.
    probabilities = softmax(model.model.predict(image, verbose=0)["logits"][0])
    best = probabilities.argmax()
    expected = tiny.COLOURS[best], f"{100 * probabilities[best]:.1f} %"
    assert section.rows[last][2:4] == expected
    if last:
        patches = sections.patches(model, image, [0])
        assert len(patches.small) == last


def test_a_section_that_fails_says_why(monkeypatch):
    def broken(*given):
        raise ValueError("no such map")

    monkeypatch.setattr("keras_attn.training.viewer.sections.grad_cam_map", broken)
    found = answer(viewed(tiny.colour_model()), upload(tiny.plain_image()), "x")
    assert sections_of(found)["Grad-CAM"].note == "Not for this model: no such map"
    assert len(found.classes) == 3


def test_places_in_words():
    values = np.zeros((6, 9))
    values[5, 0] = 1
    assert place(values) == "lower left"
    points = {"top": (0, 0.5), "right": (0.5, 0.99), "centre": (0.5, 0.5)}
    assert {name: place_at(*point) for name, point in points.items()} == {
        name: name for name in points
    }
