"""Pictures of images and of maps over them.

Convention: maps are (height, width, classes), rows from the top. Cell (i, j) of an
h x w map stands for the region centred at ((i + 0.5) H / h, (j + 0.5) W / w) of an
H x W image, in the frame whose origin is the outer corner of the top left pixel.
"""

import collections
import math
import pathlib
import re
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from keras_attn.pipelines.files import write_then_rename
from keras_attn.pipelines.images.fonts import font_file, is_plain, without_boxes

MAP_COLOURS = "inferno"
OPACITY = 0.6
# Drawn size of an image's longer side, and the images on one overview sheet.
PANEL_INCHES = 3.0
SHEET_ROWS = 20


def upsample(maps, height, width):
    """Bilinear interpolation that keeps each cell's value at its region's centre.

    Beyond the outermost centres the border's values are repeated. Maps `(h, w, ...)`
    become `(height, width, ...)`, float64.

    >>> upsample(np.array([[0.0, 1.0]]), 1, 4)
    array([[0.  , 0.25, 0.75, 1.  ]])
    """
    maps = np.asarray(maps, "float64")
    for axis, size in enumerate((height, width)):
        cells = maps.shape[axis]
        centres = (np.arange(size) + 0.5) * cells / size - 0.5
        centres = np.clip(centres, 0, cells - 1)
        lower = np.floor(centres).astype(int)
        upper = np.minimum(lower + 1, cells - 1)
        shape = [1] * maps.ndim
        shape[axis] = size
        share = (centres - lower).reshape(shape)
        below, above = np.take(maps, lower, axis), np.take(maps, upper, axis)
        maps = below * (1 - share) + above * share
    return maps


def titles_of(files):
    """Names of files, with their folder where two names are the same."""
    names = collections.Counter(file.name for file in files)
    return [
        file.name if names[file.name] == 1 else f"{file.parent.name}/{file.name}"
        for file in files
    ]


def save(figure, path):
    """Writes a figure as PNG; the file appears when it is complete."""
    with write_then_rename(path) as file:
        print_png(figure, file)


def print_png(figure, file):
    """Writes a figure as PNG to a binary file."""
    FigureCanvasAgg(with_fonts(figure)).print_png(file)


def with_fonts(figure):
    """The figure with a font for every text that matplotlib's own cannot draw."""
    for text in figure.findobj(Text):
        content = text.get_text()
        if is_plain(content):
            continue
        file = font_file(content)
        if file is None:
            text.set_text(without_boxes(content))
        else:
            properties = text.get_fontproperties().copy()
            properties.set_file(file)
            text.set_fontproperties(properties)
    return figure


def write_pages(pages, output, name="overview", write=None):
    """Writes `overview.png`, `overview_2.png`, ...; the paths.

    Args:
        pages: Figures; a generator makes each one when the one before is written.
        output: Folder; made if it does not exist.
        name: Name of the first file.
        write: Function of a page and its path; `None`: `save`.
    """
    written = []
    for number, page in enumerate(pages, 1):
        output.mkdir(parents=True, exist_ok=True)
        written.append(output / f"{name if number == 1 else f'{name}_{number}'}.png")
        (write or save)(page, written[-1])
    return written


def sheet_parts(count):
    """Slices of the images that stand on one sheet."""
    return [slice(at, at + SHEET_ROWS) for at in range(0, count, SHEET_ROWS)]


def wrap(name, width=30):
    """A long name on several lines, broken after underscores and spaces."""
    lines = [""]
    for word in re.findall(r"[^_ ]*[_ ]|[^_ ]+", name):
        if lines[-1] and len(lines[-1] + word) > width:
            lines.append("")
        lines[-1] += word
    return "\n".join(line.rstrip(" ") for line in lines)


def new_figure(size):
    """An empty figure; size: width and height in inches."""
    # No pyplot: it keeps every figure of the process alive.
    return Figure(figsize=size, dpi=100, layout="constrained")


def panel_inches(image):
    """Width and height of a panel of an image's shape."""
    height, width = image.shape[:2]
    longer = max(height, width)
    return PANEL_INCHES * width / longer, PANEL_INCHES * height / longer


class Grid(NamedTuple):
    """A matplotlib `Figure` and its `(rows, columns)` panels."""

    figure: Figure
    axes: np.ndarray


def grid(rows, columns, image, scale=1.0, gaps=(0, 0), margins=(0, 0), ratios=None):
    """An empty `Grid` of panels that have the shape of an image.

    Args:
        rows, columns: Number of panels.
        image: `(height, width, 3)`.
        scale: Size of the panels in that of `panel_inches`.
        gaps: Inches beside and below each panel.
        margins: Inches beside and below all of them.
        ratios: Widths of the columns in those of a panel; `None`: all 1.
    """
    width, height = panel_inches(image)
    ratios = ratios or [1.0] * columns
    size = (
        scale * width * sum(ratios) + columns * gaps[0] + margins[0],
        rows * (scale * height + gaps[1]) + margins[1],
    )
    figure = new_figure(size)
    axes = figure.subplots(rows, columns, squeeze=False, width_ratios=ratios)
    return Grid(figure, axes)


def sheet(rows, columns, image, note="", ratios=None):
    """The empty `Grid` of an overview: one row per image, and a line below.

    Args:
        rows, columns, image, ratios: See `grid`.
        note: Line below.
    """
    margins = 1.2, 0.4 if note else 0
    figure, axes = grid(rows, columns, image, 0.7, (0, 0.75), margins, ratios)
    if note:
        figure.supxlabel(note, fontsize=8)
    return Grid(figure, axes)


def frame(image):
    """Edges of the picture in pixels of the image: left, right, bottom, top."""
    return (0, image.shape[1], image.shape[0], 0)


def draw_image(axis, image):
    """The image alone in a panel."""
    axis.imshow(image, extent=frame(image), interpolation="nearest")
    axis.set_axis_off()


def draw_grey(axis, image):
    """The image in grey, so that all colour is the map's."""
    grey = image @ np.array([0.299, 0.587, 0.114]) / 255
    # Lightened, so that a dark image does not look like a low value of the map.
    grey = 0.3 + 0.7 * grey
    draw_image(axis, np.repeat(grey[..., None], 3, axis=-1))


def draw_map(axis, image, values, limits=(None, None), smooth=True, opacity=OPACITY):
    """A map in colours over the image in grey.

    Args:
        axis: Panel.
        image: `(H, W, 3)`, 8-bit.
        values: `(h, w)`.
        limits: Values of the darkest and the brightest colour; `None`: the map's own.
        smooth: Whether to interpolate between the centres of cells.
        opacity: Opacity of the map.
    """
    draw_grey(axis, image)
    if smooth:
        # Finer than the pixels of a small image, so that the map looks smooth.
        finer = math.ceil(256 / max(image.shape[:2]))
        values = upsample(values, finer * image.shape[0], finer * image.shape[1])
    low, high = limits
    axis.imshow(
        values,
        extent=frame(image),
        cmap=MAP_COLOURS,
        vmin=low,
        vmax=low + 1 if low is not None and low == high else high,
        alpha=opacity,
        interpolation="nearest",
    )


def colour_bar(figure, axis, label=""):
    """The scale of a panel's last image beside it, as high as the panel."""
    bar = figure.colorbar(axis.images[-1], cax=axis.inset_axes((1.03, 0, 0.05, 1)))
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def free_name(title, taken):
    """A file name, without suffix, that no other picture has."""
    stem = pathlib.PurePath(title.replace("/", "_")).stem
    if stem.startswith("overview"):
        stem = f"image_{stem}"
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
    taken.add(name)
    return name
