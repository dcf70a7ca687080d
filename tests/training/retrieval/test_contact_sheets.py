"""Contact sheets of searches, looked at pixel by pixel."""

import numpy as np
import pytest
from PIL import Image, ImageFont

from keras_attn.pipelines.collections.filesystems import joined
from keras_attn.training import drawing
from keras_attn.training.retrieval import contact_sheets
from keras_attn.training.retrieval.contact_sheets import (
    CELL,
    FONT_SIZE,
    GAP,
    draw_sheets,
)
from tests.training import tiny_models as tiny


def result(folder, query, hits):
    return {
        "image": str(folder / query),
        "hits": [
            {"image": str(folder / name), "similarity": 1 - 0.01 * number}
            for number, name in enumerate(hits)
        ],
    }


def colours_along(picture, row):
    line = picture[row]
    runs = np.flatnonzero(np.any(line[1:] != line[:-1], axis=1))
    return [tuple(int(value) for value in line[place + 1]) for place in runs]


def test_rows_continue_below_and_missing_files_are_grey(tmp_path):
    blue, green = (0, 0, 200), (0, 200, 0)
    tiny.save_image(tmp_path / "query.png", tiny.plain_image(*blue))
    tiny.save_image(tmp_path / "wide.png", tiny.plain_image(*green, height=9, width=90))
    hits = ["wide.png"] * 10 + ["gone.png", "wide.png"]
    sheet = contact_sheets.hit_sheet([result(tmp_path, "query.png", hits)], tmp_path)
    picture = np.asarray(sheet)
    middle = GAP + CELL // 2
    line = (picture.shape[0] - GAP) // 2
    first = colours_along(picture, middle)
    assert first.count(blue) == 1 and first.count(green) == 10
    second = colours_along(picture, middle + line)
    assert second.count(blue) == 0 and second.count(green) == 1
    assert second.index(contact_sheets._MISSING_COLOUR) < second.index(green)
    # A wide image keeps its shape: 90 x 9 pixels in the middle of its cell.
    column = 2 * GAP + CELL + GAP + CELL // 2
    assert np.all(picture[GAP : GAP + CELL, column] == green, axis=1).sum() == 9


def test_hits_of_a_url_are_read_there(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    file = tiny.save_image(tmp_path / "query.png", tiny.plain_image(0, 0, 200))
    fsspec.filesystem("memory").pipe("/hits/a/1.png", file.read_bytes())
    hits = [
        {"image": joined("memory://hits", name), "similarity": 1.0}
        for name in ("a/1.png", "a/2.png")
    ]
    results = [{"image": str(file), "hits": hits}]
    picture = np.asarray(contact_sheets.hit_sheet(results, "memory://hits"))
    seen = colours_along(picture, GAP + CELL // 2)
    assert seen.count((0, 0, 200)) == 2
    assert seen.count(contact_sheets._MISSING_COLOUR) == 1


def test_sheets_hold_a_number_of_queries(tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "SHEET_ROWS", 2)
    tiny.save_image(tmp_path / "a.png", tiny.plain_image())
    results = [result(tmp_path, "a.png", ["a.png"] * count) for count in (3, 1, 2)]
    written = draw_sheets(results, tmp_path, tmp_path / "new" / "sheets")
    assert [path.name for path in written] == ["hits.png", "hits_2.png"]
    sizes = [Image.open(path).size for path in written]
    assert sizes[0] == (4 * (CELL + GAP) + 2 * GAP, 2 * (sizes[1][1] - GAP) + GAP)


def test_names_are_broken_and_lose_their_beginning():
    font = ImageFont.load_default(FONT_SIZE)
    assert contact_sheets._lines("short.jpg", font) == ["short.jpg"]
    name = "/".join(f"folder{number}" for number in range(30)) + "/image.jpg"
    lines = contact_sheets._lines(name, font)
    assert len(lines) == contact_sheets.NAME_LINES
    assert lines[0][0] == "…" and name.endswith("".join(lines)[1:])
    assert all(font.getlength(line) <= CELL for line in lines[1:])
