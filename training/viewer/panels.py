"""Single pictures for the page: one panel each, with its words beside it.

The pictures hold what only a picture can show; captions and descriptions are text, so
that they can be read at any width, and be read aloud.
"""

import dataclasses
import io
import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from keras_attn.training.drawing import panel_inches, print_png
from keras_attn.training.viewer.uploads import data_address, png

# Drawn small and fine: on the page text is then as large as that around it.
SCALE, DPI = 0.8, 180
BAR_INCHES, BAR_HEIGHT = 0.52, 0.1
# Every pixel of a small image is drawn so large that its edges stay sharp.
ENLARGED_TO = 320


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture with its words.

    Args:
        source: Address of the picture, `data:...`.
        caption: Its name, shown below it.
        description: Its content in words, for those who do not see it.
        marked: Whether it is the most important of its section.
    """

    source: str
    caption: str
    description: str
    marked: bool = False


def panel(image, draw, caption, description, bar=None, marked=False):
    """A `Picture` of one panel.

    Args:
        image: `(height, width, 3)`, which gives the panel its shape.
        draw: Called with a matplotlib axis.
        caption, description, marked: See `Picture`.
        bar: Meaning of the colours of the last image drawn; `None`: no scale.
    """
    width, height = (SCALE * inches for inches in panel_inches(image))
    room = BAR_INCHES if bar else 0
    total = height + room
    # By hand: a layout that makes room for labels would draw each image differently.
    figure = Figure(figsize=(width, total), dpi=DPI)
    axis = figure.add_axes((0, room / total, 1, height / total))
    draw(axis)
    if bar:
        _draw_bar(figure, axis, bar, room / total, BAR_HEIGHT / total)
    buffer = io.BytesIO()
    print_png(figure, buffer)
    return Picture(data_address(buffer.getvalue()), caption, description, marked)


def _draw_bar(figure, axis, text, room, height):
    """The scale of the last image below the panel, in shares of the figure."""
    below = figure.add_axes((0.06, room - 1.4 * height, 0.88, height))
    scale = figure.colorbar(axis.images[-1], cax=below, orientation="horizontal")
    scale.set_label(text, fontsize=8, labelpad=2)
    scale.ax.tick_params(labelsize=8, pad=2, length=2)
    scale.locator = MaxNLocator(4)
    scale.update_ticks()


def plain(image, caption, description, marked=False):
    """A `Picture` of an image as it is, enlarged if it is small."""
    image = np.asarray(image)
    factor = max(1, math.ceil(ENLARGED_TO / max(image.shape[:2])))
    enlarged = image.repeat(factor, axis=0).repeat(factor, axis=1)
    return Picture(data_address(png(enlarged)), caption, description, marked)


def place(values):
    """The place where a map is highest, in words: `"upper left"`, `"centre"`, ..."""
    values = np.asarray(values)
    y, x = np.unravel_index(values.argmax(), values.shape)
    return place_at((y + 0.5) / values.shape[0], (x + 0.5) / values.shape[1])


def place_at(y, x):
    """A point in words; coordinates in 0..1 from the upper left corner."""
    row = ("upper", "", "lower")[min(int(3 * y), 2)]
    column = ("left", "", "right")[min(int(3 * x), 2)]
    if row and column:
        return f"{row} {column}"
    return {"upper": "top", "lower": "bottom"}.get(row, row) or column or "centre"


def percent(share):
    return f"{100 * share:.1f} %"
