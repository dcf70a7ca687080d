import numpy as np
import pytest
from PIL import Image

from keras_attn.training.drawing import SHEET_ROWS
from keras_attn.training.explain.class_maps import (
    ClassExplanation,
    picture,
    sheet,
)
from keras_attn.training.explain.class_maps import explain as explain_images
from keras_attn.training.explain.files import explain, labels_of
from keras_attn.training.trained import Trained
from tests.training import tiny_models as tiny


def split_image():
    """The upper left cell red, the lower right one blue, all else green."""
    image = tiny.plain_image(green=255)
    image[: tiny.CELL, : tiny.CELL] = (255, 0, 0)
    image[-tiny.CELL :, -tiny.CELL :] = (0, 0, 255)
    return image


def explanation(maps=None, size=(16, 24)):
    if maps is None:
        maps = np.random.default_rng(0).dirichlet(np.ones(3), (2, 3))
    probabilities = maps.mean(axis=(0, 1))
    image = np.zeros((*size, 3), "uint8")
    return ClassExplanation(image, probabilities, tiny.COLOURS, "x.png", maps)


def test_maps_are_the_softmax_of_the_patch_logits():
    model = Trained(tiny.colour_model(), None)
    (result,) = explain_images(model, split_image()[None], ["x.png"])
    assert result.maps.shape == (2, 3, 3)
    np.testing.assert_array_equal(result.maps.argmax(-1), [[0, 1, 1], [1, 1, 2]])
    sure = np.exp(tiny.GAIN) / (np.exp(tiny.GAIN) + 2)
    np.testing.assert_allclose(result.maps.max(-1), sure, rtol=1e-5)
    # The image: four green cells, one red, one blue.
    weights = np.exp(tiny.GAIN * np.array([1, 4, 1]) / 6)
    np.testing.assert_allclose(result.probabilities, weights / weights.sum(), rtol=1e-5)
    assert result.top(2) == [1, 0]


def test_models_without_patch_logits_are_an_error():
    model = Trained(tiny.colour_model(patch_logits=False), None)
    with pytest.raises(ValueError, match="class_embedding_concat or aux"):
        explain_images(model, split_image()[None], ["x"])


def test_picture_draws_maps_where_they_belong():
    model = Trained(tiny.colour_model(), None)
    (result,) = explain_images(model, split_image()[None], ["x.png"])
    figure = picture(result, [0, 2])
    image, red, blue, cells = figure.axes[:4]
    np.testing.assert_array_equal(image.images[0].get_array(), split_image())
    for axis, corner in ((red, (0, 0)), (blue, (-1, -1))):
        drawn = axis.images[-1]
        values = drawn.get_array()
        # In the frame of the image, whatever the resolution of the map.
        assert tuple(drawn.get_extent()) == (0, tiny.WIDTH, tiny.HEIGHT, 0)
        assert values.shape[0] / values.shape[1] == tiny.HEIGHT / tiny.WIDTH
        assert values[corner] == values.max() > 0.99
        assert values[corner[0], -1 - corner[1]] < 0.01
    assert red.images[-1].get_clim() == blue.images[-1].get_clim()
    assert red.get_title().splitlines()[0] == "red"
    assert figure.get_suptitle().startswith("x.png: green (")
    colours = cells.images[-1].get_array()
    assert colours.shape == (2, 3, 4)
    np.testing.assert_array_equal(colours[0, 1], colours[1, 0])
    assert not np.array_equal(colours[0, 0], colours[1, 2])
    names = [text.get_text() for text in cells.get_legend().get_texts()]
    assert names[0] == "green" and set(names) == set(tiny.COLOURS)


def test_cells_of_more_classes_than_colours_share_one():
    maps = np.eye(9).reshape(3, 3, 9)
    many = ClassExplanation(
        np.zeros((9, 9, 3), "uint8"),
        np.full(9, 1 / 9),
        tuple("abcdefghi"),
        "x.png",
        maps,
    )
    cells = picture(many, [0]).axes[2]
    names = [text.get_text() for text in cells.get_legend().get_texts()]
    assert names == [*"abcdef", "3 more classes"]


def test_sheet_has_one_scale_and_a_row_an_image():
    maps = np.zeros((2, 3, 3))
    maps[..., 0] = 1
    figure = sheet([explanation(), explanation(maps)], [[0, 1], [2, 1]])
    panels = [axis for axis in figure.axes if axis.images]
    assert len(panels) == 6
    limits = {axis.images[-1].get_clim() for axis in panels if len(axis.images) == 2}
    assert limits == {(0, explanation().maps[..., [0, 1]].max())}


def test_explain_writes_a_picture_for_each_image(tmp_path):
    path = tiny.save_colour_model(tmp_path)
    for name in ("a/overview.png", "b/1.png"):
        tiny.save_image(tmp_path / "in" / name, split_image())
    written, problems = explain(path, [tmp_path / "in"], tmp_path / "out", top=2)
    names = [file.name for file in written]
    assert names == ["image_overview.png", "1.png", "overview.png"]
    assert problems == ()
    wide = []
    for file in written:
        with Image.open(file) as image:
            assert image.format == "PNG"
            wide.append(image.size)
            assert len(np.unique(np.asarray(image))) > 50
    assert wide[0] == wide[1]


def test_many_images_take_several_sheets(tmp_path, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr("keras_attn.training.drawing.save", lambda *given: None)
    for name in ("picture", "sheet"):
        monkeypatch.setattr(
            f"keras_attn.training.explain.class_maps.{name}",
            lambda *given: drawn.append(given),
        )
    path = tiny.save_colour_model(tmp_path)
    for number in range(SHEET_ROWS + 1):
        tiny.save_image(tmp_path / "in" / f"{number:02}.png", split_image())
    for name in ("a/1.png", "b/1.png"):
        tiny.save_image(tmp_path / "in" / name, split_image())
    written, _ = explain(path, [tmp_path / "in"], tmp_path / "out", ["blue", "red"])
    assert (
        f"Drew {SHEET_ROWS + 3} of {SHEET_ROWS + 3} images" in capsys.readouterr().err
    )
    names = [file.name for file in written]
    assert names[-4:] == ["a_1.png", "b_1.png", "overview.png", "overview_2.png"]
    first, rows = drawn.pop(SHEET_ROWS)
    rest, _ = drawn.pop()
    assert (len(first), len(rest)) == (SHEET_ROWS, 3)
    assert rows == [[2, 0]] * SHEET_ROWS
    assert [each.title for each, _ in drawn] == [each.title for each in first + rest]
    assert all(labels == [2, 0] for _, labels in drawn)


def test_unknown_classes_name_the_nearest(tmp_path):
    assert labels_of(["blue", "red"], tiny.COLOURS) == [2, 0]
    with pytest.raises(ValueError, match="'gren'; the nearest is 'green'"):
        labels_of(["gren"], tiny.COLOURS)
    path = tiny.save_colour_model(tmp_path)
    file = tiny.save_image(tmp_path / "x.png", split_image())
    with pytest.raises(ValueError, match="top=0"):
        explain(path, [file], tmp_path / "out", top=0)
    assert not (tmp_path / "out").exists()
