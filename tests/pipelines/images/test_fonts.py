"""Names of every script in pictures: never boxes."""

import warnings

import numpy as np
import pytest
from PIL import Image

from keras_attn.pipelines.images import fonts
from keras_attn.pipelines.images.contact_sheet import contact_sheet
from keras_attn.training.drawing import new_figure, save
from keras_attn.training.evaluation import report_charts
from keras_attn.training.explain.explanation import Explanation
from keras_attn.training.retrieval.contact_sheets import hit_sheet

DRAWN = ("rose", "ηλιοτρόπιο", "подсолнух", "عباد الشمس", "café")
CHINESE = "向日葵"
# Beside characters that no font has, control characters and half a surrogate pair.
NAMES = (*DRAWN, CHINESE, "🌻", "sun\U000f0000", "a\x07", "\udcff")


@pytest.fixture(autouse=True)
def no_other_fonts(monkeypatch):
    first = fonts._files()[0]
    monkeypatch.setattr(fonts, "_files", lambda: [first])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_names_are_drawn_or_numbered():
    shown = fonts.drawable_names(NAMES)
    assert shown == (*DRAWN, *(f"class {number}" for number in range(6, 11)))
    assert fonts.numbered(DRAWN) == ""
    assert "fonts-noto-cjk): class 1 is 向日葵, class 2 is 🌻" in fonts.numbered(
        NAMES[5:]
    )


def test_a_font_of_the_system_is_found(monkeypatch, tmp_path):
    first = fonts._files()[0]
    monkeypatch.setattr(fonts, "_files", lambda: [first, "broken", "other"])
    characters = {first: fonts._characters(first), "other": {ord(c) for c in CHINESE}}
    broken = fonts._characters("broken")
    monkeypatch.setattr(fonts, "_characters", lambda file: characters.get(file, broken))
    assert fonts.font_file(CHINESE) == "other"
    assert fonts.font_file("a" + CHINESE) is None


def test_figures(tmp_path):
    def drawn(names):
        figure = new_figure((4, 3))
        axis = figure.add_subplot()
        axis.set_title("".join(names))
        for place, name in enumerate(names):
            axis.text(0, place / len(names), name)
        save(figure, tmp_path / "figure.png")
        return np.asarray(Image.open(tmp_path / "figure.png"))

    # Another figure without any character that no font has.
    plain = drawn([fonts.without_boxes(name) for name in NAMES])
    np.testing.assert_array_equal(drawn(NAMES), plain)
    image = np.zeros((4, 4, 3), "uint8")
    shown = Explanation(image, np.eye(len(NAMES))[5], NAMES, "x").decision()
    assert shown == "x: class 6 (100.0 %)"


def test_confusion_matrices_of_reports():
    svg = report_charts.confusion(np.eye(len(NAMES), dtype=int), NAMES)
    assert "подсолнух  3" in svg and ">6<" in svg and CHINESE not in svg


def test_contact_sheets(tmp_path):
    images = np.zeros((1, 64, 64, 3), "uint8")

    def row(name):
        return np.asarray(contact_sheet(images, [0], [name]))

    assert (row(CHINESE) == row("class 1")).all() and (row("ηλιο") != row("?")).any()
    file = tmp_path / "向日葵.png"
    Image.fromarray(images[0]).save(file)
    hits = [{"image": str(file), "similarity": 1.0}]
    hit_sheet([{"image": str(file), "hits": hits}], tmp_path)
