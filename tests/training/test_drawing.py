import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_attn.training.drawing import (
    PANEL_INCHES,
    SHEET_ROWS,
    draw_map,
    free_name,
    grid,
    new_figure,
    sheet,
    sheet_parts,
    titles_of,
    upsample,
    wrap,
    write_pages,
)


@pytest.mark.parametrize("size", [(2, 3), (14, 15), (31, 23), (1, 1)])
def test_upsample_agrees_with_half_pixel_centres(size):
    maps = np.random.default_rng(0).normal(size=(2, 3, 5)).astype("float32")
    expected = tf.image.resize(maps, size, "bilinear", antialias=False)
    np.testing.assert_allclose(upsample(maps, *size), expected, atol=1e-5)


def test_upsample_keeps_cells_at_the_centres_of_their_regions():
    maps = np.random.default_rng(0).normal(size=(2, 5))
    # An odd factor has a pixel right at each cell's centre.
    result = upsample(maps, 2 * 7, 5 * 3)
    np.testing.assert_allclose(result[3::7, 1::3], maps)
    ramp = upsample(np.arange(5.0)[None], 1, 40)[0]
    inner = (np.arange(4, 36) + 0.5) / 8 - 0.5
    np.testing.assert_allclose(ramp[4:36], inner)
    assert set(ramp[:4]) == {0.0} and set(ramp[-4:]) == {4.0}


def test_names():
    assert wrap("one_two three-four", 9) == "one_two\nthree-four"
    assert wrap("short") == "short"
    files = [pathlib.Path(each) for each in ("a/x.png", "b/x.png", "b/y.png")]
    assert titles_of(files) == ["a/x.png", "b/x.png", "y.png"]
    taken = set()
    found = [free_name(each, taken) for each in ("a.png", "a.jpg", "b/a.png")]
    assert found == ["a", "a_2", "b_a"]
    assert free_name("overview.png", taken) == "image_overview"


def test_panels_have_the_shape_of_the_image():
    image = np.zeros((30, 60, 3), "uint8")
    figure, axes = grid(2, 3, image, 0.5, gaps=(0.1, 0.2), margins=(0.4, 0.8))
    width, height = PANEL_INCHES / 2, PANEL_INCHES / 4
    assert axes.shape == (2, 3)
    np.testing.assert_allclose(
        figure.get_size_inches(),
        (3 * (width + 0.1) + 0.4, 2 * (height + 0.2) + 0.8),
    )
    plain, noted = sheet(2, 3, image).figure, sheet(2, 3, image, "note").figure
    assert noted.get_supxlabel() == "note" and not plain.get_supxlabel()
    assert noted.get_size_inches()[1] > plain.get_size_inches()[1]
    narrow = sheet(1, 2, image, ratios=[1.0, 0.5]).figure.get_size_inches()[0]
    assert narrow < sheet(1, 2, image).figure.get_size_inches()[0]


def test_pages_are_written_one_by_one(tmp_path):
    output, seen = tmp_path / "new" / "out", []

    def pages():
        for _ in range(3):
            yield new_figure((1, 1))
            # The one before lies there when the next one is made.
            seen.append(len(list(output.iterdir())))

    written = write_pages(pages(), output)
    names = ["overview.png", "overview_2.png", "overview_3.png"]
    assert [path.name for path in written] == names and seen == [1, 2, 3]
    for path in written:
        with Image.open(path) as image:
            assert image.format == "PNG"
    texts = write_pages("ab", output, "hits", lambda page, path: path.write_text(page))
    assert [path.name for path in texts] == ["hits.png", "hits_2.png"]
    assert texts[1].read_text() == "b"


def test_parts_cover_all_images_in_order():
    count = 2 * SHEET_ROWS + 1
    parts = [list(range(count))[part] for part in sheet_parts(count)]
    assert [len(part) for part in parts] == [SHEET_ROWS, SHEET_ROWS, 1]
    assert sum(parts, []) == list(range(count))
    assert sheet_parts(0) == []


@pytest.mark.parametrize(
    "limits, wanted",
    [((0, 4), (0, 4)), ((None, None), (1, 6)), ((3, 3), (3, 4))],
)
def test_maps_lie_over_the_image_on_a_scale(limits, wanted):
    image = np.zeros((10, 20, 3), "uint8")
    values = np.arange(1.0, 7).reshape(2, 3)
    axis = new_figure((2, 2)).subplots()
    draw_map(axis, image, values, limits, smooth=False, opacity=1.0)
    drawn = axis.images[-1]
    np.testing.assert_array_equal(drawn.get_array(), values)
    assert drawn.get_clim() == wanted and drawn.get_alpha() == 1.0
    assert tuple(drawn.get_extent()) == (0, 20, 10, 0)
    # Grey below, and as fine as the screen if it is smooth.
    grey = np.asarray(axis.images[0].get_array())
    assert np.ptp(grey, axis=-1).max() == 0
    draw_map(axis, image, values, limits)
    smooth = axis.images[-1].get_array()
    assert smooth.shape == (130, 260)
    np.testing.assert_allclose(smooth, upsample(values, 130, 260))
