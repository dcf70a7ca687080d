import numpy as np
import pytest

from keras_attn.pipelines.images.contact_sheet import (
    contact_sheet,
    counts_table,
    reduced,
)


def plain(height, width, value):
    return np.full((height, width, 3), value, "uint8")


def cell_colours(sheet, name_width=200, gap=4, cell=66):
    """The colour in the middle of every cell of a sheet."""
    pixels = np.asarray(sheet)
    middles_y = range(gap + cell // 2, pixels.shape[0], cell + gap)
    middles_x = range(name_width + gap + cell // 2, pixels.shape[1], cell + gap)
    return [[pixels[y, x, 0].item() for x in middles_x] for y in middles_y]


def test_one_row_a_class_in_order():
    images = [plain(33, 33, value) for value in (10, 20, 30, 40, 50)]
    sheet = contact_sheet(images, [1, 0, 1, 1, 0], ["cat", "dog"], columns=2)
    assert sheet.mode == "RGB" and sheet.size == (200 + 2 * 70 + 4, 2 * 70 + 4)
    assert cell_colours(sheet) == [[20, 50], [10, 30]]


def test_missing_images_leave_their_cells_white():
    sheet = contact_sheet([plain(33, 33, 7)], [2], ["a", "b", "c"], columns=2)
    assert cell_colours(sheet) == [[255, 255], [255, 255], [7, 255]]


def test_names_are_written_at_the_left():
    with_name = contact_sheet([plain(33, 33, 7)], [0], ["long_name " * 30])
    without = contact_sheet([plain(33, 33, 7)], [0], [""])
    assert with_name.size == without.size
    different = (np.asarray(with_name) != np.asarray(without)).any(axis=(0, 2))
    assert different[:200].any() and not different[200:].any()


def test_enlarged_without_smoothing_and_reduced_in_proportion():
    checks = np.zeros((32, 32, 3), "uint8")
    checks[::2] = 255
    sheet = np.asarray(contact_sheet([checks], [0], ["a"], columns=1))
    expected = np.repeat(np.repeat(checks, 2, axis=0), 2, axis=1)
    np.testing.assert_array_equal(sheet[4:68, 204:268], expected)
    wide = np.asarray(contact_sheet([plain(100, 400, 9)], [0], ["a"], columns=1))
    rows, columns = np.nonzero((wide[:, 200:] == 9).all(axis=-1))
    assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (32, 128)


def test_boxes_are_drawn_around_their_content():
    image = plain(32, 32, 0)
    sheet = contact_sheet(
        [image, image], [0, 0], ["a"], columns=2, boxes=[[3, 5, 11, 30], [-1] * 4]
    )
    cells = np.asarray(sheet)[4:68, 204:]
    rows, columns = np.nonzero((cells == (255, 255, 0)).all(axis=-1))
    # Half-open in an image enlarged by two: the last line is inside the box.
    assert (rows.min(), rows.max()) == (6, 21)
    assert (columns.min(), columns.max()) == (10, 59)


def test_images_of_different_sizes():
    images = [plain(20, 31, 1), plain(300, 40, 2), plain(50, 50, 3)]
    sheet = contact_sheet(images, np.array([0, 0, 0]), ["a"], columns=3)
    assert sheet.size == (200 + 3 * 132 + 4, 136)


def test_only_some_rows_of_many_classes():
    images = np.zeros((7, 32, 32, 3), "uint8")
    names = [f"class {i}" for i in range(7)]
    sheet = contact_sheet(images, np.arange(7), names, columns=1, rows=3)
    assert sheet.size[1] == 3 * 68 + 4 + 42
    last_line = np.asarray(sheet)[3 * 68 + 4 :]
    assert (last_line < 128).any()


def test_counts_table():
    table = counts_table([0, 2, 2, 0, 2], ["cat", "horse", "cow"])
    assert [line.split() for line in table.splitlines()] == [
        ["class", "examples"],
        ["cat", "2"],
        ["horse", "0"],
        ["cow", "3"],
        ["total", "5"],
    ]
    assert len({len(line) for line in table.splitlines()}) == 1


@pytest.mark.parametrize(
    "changed,message",
    [
        ({"labels": [0, 2]}, "from 0 to 1.*Received: label 2"),
        ({"labels": [0, -1]}, "Received: label -1"),
        ({"labels": [0.0, 1.0]}, "vector of integers.*float64"),
        ({"labels": [0]}, "as many images as labels.*2 images, 1 labels"),
        ({"boxes": [[0, 0, 1, 1]]}, "as many boxes as labels"),
        ({"class_names": []}, "at least one class name"),
        ({"columns": 0}, "columns >= 1.*columns=0"),
        ({"images": np.zeros((2, 8, 8, 1), "uint8")}, r"image 0 of shape \(8, 8, 1\)"),
        ({"images": np.zeros((2, 8, 8, 3))}, "dtype uint8.*float64"),
    ],
)
def test_bad_arguments(changed, message):
    arguments = {
        "images": np.zeros((2, 8, 8, 3), "uint8"),
        "labels": [0, 1],
        "class_names": ["a", "b"],
    }
    with pytest.raises(ValueError, match=message):
        contact_sheet(**{**arguments, **changed})


def test_reduced_images_and_boxes_are_drawn_as_the_large_ones():
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, size, "uint8") for size in SIZES]
    boxes = np.array([[20, 60, 160, 320], [-1, -1, -1, -1], [1, 2, 30, 40]])
    labels, names = [0, 1, 1], ["a", "b"]
    small, factors = zip(*map(reduced, images), strict=True)
    assert [image.shape[:2] for image in small] == [(57, 128), (128, 64), (50, 90)]
    scaled = boxes * np.reshape(factors, (-1, 1))
    sheets = [
        np.asarray(contact_sheet(pictures, labels, names, boxes=corners))
        for pictures, corners in ((images, boxes), (small, scaled))
    ]
    np.testing.assert_array_equal(*sheets)


SIZES = ((181, 406, 3), (300, 150, 3), (50, 90, 3))
