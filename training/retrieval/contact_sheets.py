"""Contact sheets of searches: each query image and the images found for it."""

import os
import pathlib

from PIL import Image, ImageDraw

from keras_attn.pipelines.collections.filesystems import filesystem_of
from keras_attn.pipelines.files import write_then_rename
from keras_attn.pipelines.images.decoding import CorruptImageError, decode_image
from keras_attn.pipelines.images.fonts import (
    font_file,
    picture_font,
    without_boxes,
)
from keras_attn.training.drawing import sheet_parts, write_pages

CELL, GAP = 150, 8
FONT_SIZE, LINE, NAME_LINES = 12, 15, 3
# Hits in a line; further ones of the same query follow below.
COLUMNS = 10
_QUERY_COLOUR, _MISSING_COLOUR = (200, 30, 30), (220, 220, 220)


def draw_sheets(results, folder, output):
    """Writes the contact sheets of a search, `hits.png`, `hits_2.png`, ...; the paths.

    Results are those of `keras_attn.training.retrieval.search.search`; names are
    shown relative to `folder`, a path or URL. The folder `output` is made if it does
    not exist.
    """
    sheets = (hit_sheet(results[part], folder) for part in sheet_parts(len(results)))
    return write_pages(sheets, pathlib.Path(output), "hits", _save)


def _save(sheet, path):
    with write_then_rename(path) as file:
        sheet.save(file, "PNG")


def hit_sheet(results, folder):
    """A picture with a row for each query: itself, framed, then its hits.

    Below every hit are its similarity and its file; the place of a file that cannot be
    read any more is grey.

    Returns:
        `PIL.Image.Image`.
    """
    most = max(len(result["hits"]) for result in results)
    columns = min(COLUMNS, max(1, most))
    lines = [max(1, -(-len(result["hits"]) // columns)) for result in results]
    step = CELL + GAP
    line_height = CELL + (1 + NAME_LINES) * LINE + GAP
    size = ((columns + 1) * step + 2 * GAP, sum(lines) * line_height + GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    top = GAP
    for result, count in zip(results, lines, strict=True):
        query = result["image"]
        name = os.path.basename(query)
        _draw_cell(sheet, draw, (GAP, top), query, "query", name)
        box = (GAP - 3, top - 3, GAP + CELL + 2, top + CELL + 2)
        draw.rectangle(box, outline=_QUERY_COLOUR, width=3)
        for number, hit in enumerate(result["hits"]):
            line, column = divmod(number, columns)
            place = ((column + 1) * step + 2 * GAP, top + line * line_height)
            file = hit["image"]
            name = file.removeprefix(str(folder)).lstrip("/")
            _draw_cell(sheet, draw, place, file, f"{hit['similarity']:.3f}", name)
        top += count * line_height
    return sheet


def _draw_cell(sheet, draw, place, file, heading, name):
    left, top = place
    font = picture_font(name, FONT_SIZE)
    name = name if font_file(name) else without_boxes(name)
    try:
        filesystem, inside = filesystem_of(file)
        picture = Image.fromarray(decode_image(filesystem.read(inside), file))
        picture.thumbnail((CELL, CELL))
        # Small images are enlarged by a whole factor, so that pixels stay pixels.
        factor = CELL // max(picture.size)
        if factor > 1:
            picture = picture.resize(
                (factor * picture.width, factor * picture.height),
                Image.Resampling.NEAREST,
            )
    except (OSError, ImportError, CorruptImageError):
        picture = Image.new("RGB", (CELL, CELL), _MISSING_COLOUR)
    indent = (CELL - picture.width) // 2, (CELL - picture.height) // 2
    sheet.paste(picture, (left + indent[0], top + indent[1]))
    for number, text in enumerate([heading, *_lines(name, font)]):
        draw.text((left, top + CELL + 3 + number * LINE), text, "black", font)


def _lines(name, font):
    """A name on as many lines as it needs, without its beginning if it is long."""
    lines = [""]
    for letter in name:
        if font.getlength(lines[-1] + letter) > CELL:
            lines.append("")
        lines[-1] += letter
    if len(lines) > NAME_LINES:
        lines = lines[-NAME_LINES:]
        lines[0] = "…" + lines[0][1:]
    return lines
