import numpy as np
import pytest
from PIL import Image

from keras_attn.training.drawing import new_figure
from keras_attn.training.explain.evidence import (
    BranchMaps,
    EvidenceExplanation,
    draw_attention,
    draw_evidence,
    highest_attention,
    highest_evidence,
    picture,
    sheet,
)
from keras_attn.training.explain.evidence import explain as explain_images
from keras_attn.training.explain.files import explain
from keras_attn.training.runs.outputs import outputs_of
from keras_attn.training.trained import Trained
from tests.training import tiny_models as tiny


def branch(evidence, attention=None, patch_size=(7, 9), stride=(3, 5), offset=(1, -2)):
    evidence = np.asarray(evidence, "float64")
    logits = evidence.sum(axis=(0, 1))
    return BranchMaps(patch_size, stride, offset, logits, evidence, attention)


def red_square(top=8, left=24, side=16):
    image = tiny.plain_image(green=60, blue=40, height=40, width=56)
    image[top : top + side, left : left + side] = (255, 0, 0)
    return image


def value_at(axis, y, x):
    """Value of the map that was drawn last at a point of the image."""
    drawn = axis.images[-1]
    values = np.asarray(drawn.get_array())
    left, right, bottom, top = drawn.get_extent()
    row = (y - top) / (bottom - top) * values.shape[0] - 0.5
    column = (x - left) / (right - left) * values.shape[1] - 0.5
    # Linear between four pixels of the drawing, as maps are between cells.
    i, j = int(row), int(column)
    a, b = row - i, column - j
    upper = values[i, j] * (1 - b) + values[i, j + 1] * b
    lower = values[i + 1, j] * (1 - b) + values[i + 1, j + 1] * b
    return upper * (1 - a) + lower * a


def test_cells_are_drawn_at_the_centres_of_their_windows():
    ramp = np.add.outer(2.0 * np.arange(4), 7.0 * np.arange(5))
    axis = new_figure((3, 3)).subplots()
    image = np.zeros((21, 31, 3), "uint8")
    shown = branch(ramp[..., None], ramp / ramp.sum())
    draw_evidence(axis, image, shown, 0, 100.0)
    assert axis.get_xlim() == (0, 31) and axis.get_ylim() == (21, 0)
    for i, j in ((1, 1), (2, 3), (1, 2)):
        centre = (1 + 3 * i + 7 / 2, -2 + 5 * j + 9 / 2)
        assert value_at(axis, *centre) == pytest.approx(ramp[i, j])
    # Half a stride beyond the outermost centres.
    assert shown.region() == (1 + 3.5 - 1.5, -2 + 4.5 - 2.5, 15, 25)
    draw_attention(axis, image, shown, 4.0)
    drawn = axis.images[-1]
    assert drawn.get_clim() == (0, 4.0)
    assert value_at(axis, 1 + 3 + 3.5, -2 + 5 + 4.5) == pytest.approx(
        20 * ramp[1, 1] / ramp.sum()
    )


def test_scales_fit_all_that_is_drawn():
    maps = np.zeros((2, 2, 3))
    maps[0, 0] = (1, -3, 5)
    assert highest_evidence([branch(maps)], [0, 1]) == 3
    assert highest_evidence([branch(maps), branch(4 * maps)], [0]) == 4
    assert highest_evidence([branch(0 * maps)], [0]) == 1
    attention = np.array([[0.7, 0.1], [0.1, 0.1]])
    seen = [branch(maps, attention), branch(maps, np.full((2, 2), 0.25))]
    assert highest_attention(seen) == pytest.approx(2.8)
    assert highest_attention([branch(maps), branch(maps)]) is None


def test_maps_are_the_outputs_of_the_branches():
    model = tiny.localizer(auxiliary=False)
    images = np.stack([red_square(), red_square(left=0)])
    outputs = outputs_of(model, images)
    explained = explain_images(Trained(model, None), images, ["a", "b"])
    for index, each in enumerate(explained):
        logits = outputs["logits"][index].astype("float64")
        expected = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(each.probabilities, expected, rtol=1e-6)
        assert each.title == "ab"[index]
        for window, seen in zip(tiny.WINDOWS, each.branches, strict=True):
            assert seen.patch_size == (window, window)
            assert (seen.stride, seen.offset) == ((8, 8), (0, 0))
            for name in ("evidence", "attention", "logits"):
                value = outputs[f"{name}_{window}"][index]
                np.testing.assert_array_equal(
                    np.ravel(getattr(seen, name)), value.ravel()
                )


def test_picture_has_a_row_a_branch_and_a_scale_a_row():
    model = Trained(tiny.localizer(auxiliary=False), None)
    (explained,) = explain_images(model, red_square()[None], ["x.png"])
    figure = picture(explained, [2, 0])
    assert figure.get_suptitle().startswith("x.png: ")
    panels = np.reshape(figure.axes[:8], (2, 4))
    for line, seen in zip(panels, explained.branches, strict=True):
        np.testing.assert_array_equal(line[0].images[0].get_array(), red_square())
        assert str(seen.patch_size[0]) in line[0].get_title()
        decides = np.array_equal(seen.probabilities, explained.probabilities)
        assert line[0].get_title().startswith("deciding: ") == decides
        assert [panel.get_title().split("\n")[0] for panel in line[1:]] == [
            "blue",
            "red",
            "attention",
        ]
        limits = {panel.images[-1].get_clim() for panel in line[1:3]}
        highest = abs(seen.evidence[..., [0, 2]]).max()
        assert limits == {(-highest, highest)}
        drawn = np.asarray(line[2].images[-1].get_array())
        # Most red where the windows are that lie on the square.
        top, left, bottom, right = seen.region()
        y, x = np.unravel_index(drawn.argmax(), drawn.shape)
        y = top + (y + 0.5) / drawn.shape[0] * (bottom - top)
        x = left + (x + 0.5) / drawn.shape[1] * (right - left)
        assert 8 <= y <= 24 and 24 <= x <= 40


def test_localizers_without_attention_have_no_such_panel():
    seen = [branch(np.random.default_rng(0).normal(size=(2, 3, 3)))]
    image = np.zeros((16, 24, 3), "uint8")
    explained = EvidenceExplanation(
        image, np.array([0.2, 0.5, 0.3]), tiny.COLOURS, "x", seen
    )
    assert explained.top(2) == [1, 2]
    titles = [axis.get_title() for axis in picture(explained, [1]).axes]
    assert not any("attention" in title for title in titles)


def test_sheet_shows_the_branch_that_is_surest():
    maps = np.zeros((2, 2, 3))
    unsure, sure = branch(maps), branch(maps + np.array([0, 1, 0]), patch_size=(9, 9))
    image = np.zeros((16, 24, 3), "uint8")
    explained = EvidenceExplanation(
        image, np.array([0.1, 0.8, 0.1]), tiny.COLOURS, "x", [unsure, sure]
    )
    figure = sheet([explained] * 3, [[1, 0]] * 3)
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert len(titles) == 9
    assert sum("9 x 9 pixels" in title for title in titles) == 6


def test_explain_chooses_by_what_the_model_answers(tmp_path):
    run = tiny.localizer_run(tmp_path / "run")
    file = tiny.save_image(tmp_path / "square.png", red_square())
    written, _ = explain(run.workdir, [file], tmp_path / "out", ["blue", "red"])
    assert [path.name for path in written] == ["square.png", "overview.png"]
    for path in written:
        with Image.open(path) as drawn:
            assert len(np.unique(np.asarray(drawn))) > 50
    colours = tiny.save_colour_model(tmp_path)
    explain(colours, [file], tmp_path / "colours", top=1)
    assert (tmp_path / "colours" / "square.png").exists()
