"""A data set at a glance: a contact sheet and a table of counts."""

import numpy as np
from PIL import Image, ImageDraw

from keras_attn.pipelines.images.fonts import drawable, picture_font

ROWS = 100
_SMALLEST_CELL, _LARGEST_CELL = 64, 128
_GAP = 4
_FONT_SIZE = 14
_LABEL_WIDTH = 200
_BOX_COLOUR = (255, 255, 0)


def contact_sheet(
    images, labels, class_names, columns=10, boxes=None, rows=ROWS
) -> Image.Image:
    """A picture with one row per class: its name, then its first images.

    Small images are enlarged by a whole factor, without smoothing, to at least 64
    pixels; large ones are reduced to at most 128.

    Args:
        images: an array (N, H, W, 3) or a list of (H, W, 3), `uint8`; the sizes
            may differ.
        labels: N integers that index `class_names`.
        class_names: one name per class. A class without images has an empty row.
        columns: images in a row at most.
        boxes: N boxes to draw, or `None`. Convention: (y0, x0, y1, x1), half-open,
            in pixels of the image; a box of -1 is not drawn.
        rows: classes shown at most; a last line has the number of those left out.

    Returns:
        A `PIL.Image.Image` in RGB.

    Raises:
        ValueError: lengths, labels, shapes or types do not fit together.

    Example:

    >>> import numpy as np
    >>> from keras_attn.pipelines.images.contact_sheet import contact_sheet
    >>> images = np.zeros((4, 32, 32, 3), "uint8")
    >>> contact_sheet(images, [0, 1, 0, 1], ["cat", "dog"]).mode
    'RGB'
    """
    labels = _checked_labels(labels, class_names)
    _check(images, labels, columns, boxes, rows)
    shown = min(len(class_names), rows)
    members = [np.flatnonzero(labels == number)[:columns] for number in range(shown)]
    used = np.concatenate(members).astype(int)
    longest = max((max(images[i].shape[:2]) for i in used), default=_SMALLEST_CELL)
    cell = _cell_side(longest)
    left_out = len(class_names) - shown
    width = _LABEL_WIDTH + columns * (cell + _GAP) + _GAP
    height = shown * (cell + _GAP) + _GAP + (3 * _FONT_SIZE if left_out else 0)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for row, chosen in enumerate(members):
        top = _GAP + row * (cell + _GAP)
        _write_name(draw, drawable(str(class_names[row]), row), top, cell)
        for column, i in enumerate(chosen):
            picture, factor = _fitted(images[i], cell)
            place = (_LABEL_WIDTH + _GAP + column * (cell + _GAP), top)
            sheet.paste(picture, place)
            if boxes is not None:
                _draw_box(draw, boxes[i], place, factor)
    if left_out:
        text = f"and {left_out} more classes"
        font = picture_font(text, _FONT_SIZE)
        draw.text((_GAP, height - 2 * _FONT_SIZE), text, "black", font)
    return sheet


def reduced(image):
    """An image as small as it is drawn, so that many fit into memory.

    Returns:
        `(image, factor)`: at most 128 pixels high and wide, and the factor by which it
        and its box are scaled.
    """
    if max(image.shape[:2]) <= _LARGEST_CELL:
        return image, 1.0
    picture, factor = _fitted(image, _LARGEST_CELL)
    return np.asarray(picture), factor


def counts_table(labels, class_names) -> str:
    """Lines of class and number of examples, and their total.

    Example:

    >>> from keras_attn.pipelines.images.contact_sheet import counts_table
    >>> print(counts_table([0, 1, 0], ["cat", "dog"]))
    class  examples
    cat           2
    dog           1
    total         3
    """
    labels = _checked_labels(labels, class_names)
    counts = np.bincount(labels, minlength=len(class_names)).tolist()
    lines = list(zip(map(str, class_names), map(str, counts), strict=True))
    lines = [("class", "examples"), *lines, ("total", str(len(labels)))]
    left, right = (max(map(len, column)) for column in zip(*lines, strict=True))
    return "\n".join(f"{name:<{left}}  {count:>{right}}" for name, count in lines)


def _checked_labels(labels, class_names):
    labels = np.asarray(labels)
    if len(class_names) == 0:
        raise ValueError("Expected at least one class name. Received: class_names=()")
    if labels.ndim != 1 or (labels.size and labels.dtype.kind not in "iu"):
        raise ValueError(
            "Expected labels to be a vector of integers. "
            f"Received: labels of shape {labels.shape}, dtype {labels.dtype}"
        )
    labels = labels.astype(int)
    wrong = labels[(labels < 0) | (labels >= len(class_names))]
    if wrong.size:
        raise ValueError(
            f"Expected labels from 0 to {len(class_names) - 1}, one for every class "
            f"name. Received: label {wrong[0]}"
        )
    return labels


def _check(images, labels, columns, boxes, rows):
    for name, value in (("columns", columns), ("rows", rows)):
        if not value >= 1:
            raise ValueError(f"Expected {name} >= 1. Received: {name}={value!r}")
    for name, values in (("images", images), ("boxes", boxes)):
        if values is not None and len(values) != len(labels):
            raise ValueError(
                f"Expected as many {name} as labels. "
                f"Received: {len(values)} {name}, {len(labels)} labels"
            )
    for i, image in enumerate(images):
        shape, dtype = np.shape(image), getattr(image, "dtype", type(image).__name__)
        if len(shape) != 3 or shape[-1] != 3 or 0 in shape or dtype != np.uint8:
            raise ValueError(
                "Expected images of shape (height, width, 3) and dtype uint8. "
                f"Received: image {i} of shape {shape}, dtype {dtype}"
            )


def _cell_side(longest):
    """Side of a cell for images whose longest side is `longest`."""
    if longest >= _SMALLEST_CELL:
        return min(longest, _LARGEST_CELL)
    return longest * -(-_SMALLEST_CELL // longest)


def _fitted(image, cell):
    """`image` as a picture that fits a cell, and the factor it was scaled by."""
    height, width = image.shape[:2]
    factor = cell / max(height, width)
    if factor > 1:
        factor = int(factor)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    smoothing = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BOX
    return Image.fromarray(np.ascontiguousarray(image)).resize(size, smoothing), factor


def _draw_box(draw, box, place, factor):
    y0, x0, y1, x1 = (float(edge) * factor for edge in box)
    if y0 < 0 or y1 <= y0 or x1 <= x0:
        return
    left, top = place
    corners = (left + x0, top + y0, left + x1 - 1, top + y1 - 1)
    draw.rectangle(corners, outline=_BOX_COLOUR)


def _write_name(draw, name, top, cell):
    """The name at the left of its row, on as many lines as it needs and fit."""
    font = picture_font(name, _FONT_SIZE)
    room = _LABEL_WIDTH - 2 * _GAP
    lines = [""]
    for word in _pieces(name):
        if lines[-1] and draw.textlength(lines[-1] + word, font) > room:
            lines.append("")
        lines[-1] += word
    most = max(1, cell // (_FONT_SIZE + 2))
    if len(lines) > most:
        lines = [*lines[: most - 1], lines[most - 1][:-1] + "…"]
    for number, line in enumerate(lines):
        draw.text((_GAP, top + number * (_FONT_SIZE + 2)), line, "black", font)


def _pieces(name):
    """The name cut after every underscore or space, where a line may end."""
    return name.replace("_", "_\0").replace(" ", " \0").split("\0")
