"""Where in an image a model sees which class: patch logits drawn as class maps.

Convention: maps are (height, width, classes), rows from the top. Cell (i, j) of an
h x w map stands for the region centred at ((i + 0.5) H / h, (j + 0.5) W / w) of an
H x W image, in the frame whose origin is the outer corner of the top left pixel.
"""

import collections
import dataclasses
import difflib
import math
import pathlib
import re

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from training.predict import check_readable, image_files, read_images
from training.trained import load_trained, outputs_of, softmax

# Colours of classes that differ for the colour-blind too (Okabe and Ito), then grey
# for whatever is left.
CELL_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00")
OTHER_COLOUR = "#999999"
MAP_COLOURS = "inferno"
OPACITY = 0.6
# Drawn size of an image's longer side, and the images on one overview sheet.
PANEL_INCHES = 3.0
SHEET_ROWS = 20


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What a model sees in one image.

    Args:
        image: `(H, W, 3)` 8-bit pixels, as the model gets them.
        probabilities: `(classes,)`, of the whole image.
        maps: `(h, w, classes)`, probabilities of each cell.
        class_names: One name a class.
        title: What the image is called.
    """

    image: np.ndarray
    probabilities: np.ndarray
    maps: np.ndarray
    class_names: tuple
    title: str

    def top(self, count):
        """Labels of the most probable classes of the image."""
        return (-self.probabilities).argsort(kind="stable")[:count].tolist()

    def caption(self, label):
        """A class's name and probability."""
        return (
            f"{wrap(self.class_names[label])}\n{100 * self.probabilities[label]:.1f} %"
        )


def upsample(maps, height, width):
    """Bilinear interpolation that keeps each cell's value at its region's centre.

    Beyond the outermost centres the border's values go on.

    Args:
        maps: `(h, w, ...)`.
        height, width: Size of the result.

    Returns:
        `(height, width, ...)`, float64.

    Example:

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


def explain_images(model, images, class_names, titles, batch_size=128):
    """The patch logits of a model as class maps.

    Args:
        model: Model with the outputs `logits` and `patch_logits`.
        images: `(examples, height, width, 3)`, 8-bit, of the model's size.
        class_names: One name a class.
        titles: One name an image.
        batch_size: Images at a time.

    Returns:
        A list of `Explanation`.

    Raises:
        ValueError: If the model has no patch logits.
    """
    if "patch_logits" not in model.output:
        raise ValueError(
            "Expected a model with an output 'patch_logits', which a recipe of row "
            "class_embedding, class_embedding_concat or aux gives. Received: "
            f"{model.name!r} with outputs {list(model.output)}"
        )
    outputs = outputs_of(model, images, batch_size)
    probabilities = softmax(outputs["logits"])
    maps = softmax(outputs["patch_logits"])
    return [
        Explanation(image, row, cells, tuple(class_names), title)
        for image, row, cells, title in zip(
            np.asarray(images), probabilities, maps, titles, strict=True
        )
    ]


def explain(
    path,
    images,
    output,
    classes=None,
    top=3,
    checkpoint="best",
    on_corrupt="error",
):
    """Draws class maps over image files.

    Args:
        path: Folder of a run, or a `.keras` file.
        images: Paths of images and of folders of images.
        output: Folder of the pictures; made if it does not exist.
        classes: Names of the classes to draw; by default the most probable ones.
        top: How many of those.
        checkpoint: `best` or `last` model of a run.
        on_corrupt: `"error"`, or `"skip"` to leave out what cannot be decoded.

    Returns:
        `(written, problems)`: the paths of the pictures, one an image and then the
        overview sheets; one `CorruptImageError` for each image left out.
    """
    if top < 1:
        raise ValueError(f"Expected `top` of at least 1. Received: top={top}")
    files = image_files(images)
    trained = load_trained(path, checkpoint)
    labels = None if classes is None else labels_of(classes, trained.class_names)
    pixels, kept, problems = read_images(files, trained.spec, on_corrupt)
    check_readable(kept, problems)
    titles = titles_of(kept)
    explanations = explain_images(trained.model, pixels, trained.class_names, titles)
    output = pathlib.Path(output)
    output.mkdir(parents=True, exist_ok=True)
    written = []
    taken = set()
    for explanation in explanations:
        chosen = labels or explanation.top(top)
        target = output / f"{_free_name(explanation.title, taken)}.png"
        save(picture(explanation, chosen), target)
        written.append(target)
    for page, start in enumerate(range(0, len(explanations), SHEET_ROWS), 1):
        part = explanations[start : start + SHEET_ROWS]
        target = output / ("overview.png" if page == 1 else f"overview_{page}.png")
        rows = [labels or explanation.top(top) for explanation in part]
        save(sheet(part, rows), target)
        written.append(target)
    return written, problems


def labels_of(classes, class_names):
    """Labels of class names.

    Raises:
        ValueError: For a name that is not there; the message names the nearest.
    """
    for name in classes:
        if name not in class_names:
            nearest = difflib.get_close_matches(name, class_names, 1, cutoff=0.0)
            raise ValueError(
                f"Expected classes of the model. Received: {name!r}; the nearest is "
                f"{nearest[0]!r}."
            )
    return [class_names.index(name) for name in classes]


def titles_of(files):
    """What each file is called: its name, with its folder where names meet twice."""
    names = collections.Counter(file.name for file in files)
    return [
        file.name if names[file.name] == 1 else f"{file.parent.name}/{file.name}"
        for file in files
    ]


def picture(explanation, labels):
    """The image, one map a class, and the most probable class of every cell.

    Args:
        explanation: `Explanation`.
        labels: Classes to draw, in this order.

    Returns:
        A matplotlib `Figure`.
    """
    panel_width, panel_height = _panel_inches(explanation.image)
    panels = len(labels) + 2
    figure = _figure((panels * panel_width + 3.2, panel_height + 1.2))
    axes = figure.subplots(1, panels, squeeze=False)[0]
    best = explanation.top(1)[0]
    percent = 100 * explanation.probabilities[best]
    figure.suptitle(
        f"{explanation.title}: {explanation.class_names[best]} ({percent:.1f} %)",
        fontsize=12,
    )
    _draw_image(axes[0], explanation.image)
    axes[0].set_title("image", fontsize=9)
    limit = explanation.maps[..., labels].max()
    for axis, label in zip(axes[1:], labels, strict=False):
        drawn = _draw_map(axis, explanation, label, limit)
        axis.set_title(explanation.caption(label), fontsize=9)
    _colour_bar(figure, drawn, axes[-2])
    _draw_cells(axes[-1], explanation)
    axes[-1].set_title("most probable class of each cell", fontsize=9)
    return figure


def sheet(explanations, rows):
    """All images, one a row, with their class maps on one colour scale.

    Args:
        explanations: List of `Explanation`.
        rows: For each the labels of the classes to draw, equally many.

    Returns:
        A matplotlib `Figure`.
    """
    panel_width, panel_height = _panel_inches(explanations[0].image)
    columns = len(rows[0]) + 1
    figure = _figure(
        (0.7 * columns * panel_width + 1.2, len(rows) * (0.7 * panel_height + 0.75))
    )
    axes = figure.subplots(len(rows), columns, squeeze=False)
    limit = max(
        explanation.maps[..., labels].max()
        for explanation, labels in zip(explanations, rows, strict=True)
    )
    for line, explanation, labels in zip(axes, explanations, rows, strict=True):
        _draw_image(line[0], explanation.image)
        line[0].set_title(wrap(explanation.title), fontsize=8)
        for axis, label in zip(line[1:], labels, strict=True):
            drawn = _draw_map(axis, explanation, label, limit)
            axis.set_title(explanation.caption(label), fontsize=8)
        _colour_bar(figure, drawn, line[-1])
    return figure


def save(figure, path):
    """Writes a figure as PNG."""
    FigureCanvasAgg(figure).print_png(str(path))


def wrap(name, width=30):
    """A long name on several lines, broken after underscores and spaces."""
    lines = [""]
    for word in re.findall(r"[^_ ]*[_ ]|[^_ ]+", name):
        if lines[-1] and len(lines[-1] + word) > width:
            lines.append("")
        lines[-1] += word
    return "\n".join(line.rstrip(" ") for line in lines)


def _figure(size):
    # No pyplot: it keeps every figure of the process alive.
    return Figure(figsize=size, dpi=100, layout="constrained")


def _panel_inches(image):
    height, width = image.shape[:2]
    longer = max(height, width)
    return PANEL_INCHES * width / longer, PANEL_INCHES * height / longer


def _frame(image):
    """Edges of the picture in pixels of the image: left, right, bottom, top."""
    return (0, image.shape[1], image.shape[0], 0)


def _draw_image(axis, image):
    axis.imshow(image, extent=_frame(image), interpolation="nearest")
    axis.set_axis_off()


def _draw_grey(axis, image):
    """The image in grey, so that all colour is the map's."""
    grey = image @ np.array([0.299, 0.587, 0.114]) / 255
    # Lightened, so that a dark image does not look like a low value of the map.
    grey = 0.3 + 0.7 * grey
    _draw_image(axis, np.repeat(grey[..., None], 3, axis=-1))


def _draw_map(axis, explanation, label, limit):
    image = explanation.image
    _draw_grey(axis, image)
    # Finer than the pixels of a small image, so that the map looks smooth.
    finer = math.ceil(256 / max(image.shape[:2]))
    smooth = upsample(
        explanation.maps[..., label], finer * image.shape[0], finer * image.shape[1]
    )
    return axis.imshow(
        smooth,
        extent=_frame(image),
        cmap=MAP_COLOURS,
        vmin=0,
        vmax=limit,
        alpha=OPACITY,
        interpolation="nearest",
    )


def _colour_bar(figure, drawn, axis):
    """The map's scale beside a panel, as high as the panel."""
    bar = figure.colorbar(drawn, cax=axis.inset_axes((1.03, 0, 0.05, 1)))
    bar.set_label("probability in the cell's region", fontsize=8)
    bar.ax.tick_params(labelsize=8)


def _draw_cells(axis, explanation):
    """Each cell in its most probable class's colour, the fainter the less probable."""
    best = explanation.maps.argmax(axis=-1)
    confidence = explanation.maps.max(axis=-1)
    present, counts = np.unique(best, return_counts=True)
    present = present[np.argsort(-counts, kind="stable")]
    colours = {
        label: CELL_COLOURS[rank] if rank < len(CELL_COLOURS) else OTHER_COLOUR
        for rank, label in enumerate(present)
    }
    cells = np.empty((*best.shape, 4))
    for label, colour in colours.items():
        cells[best == label, :3] = to_rgb(colour)
    cells[..., 3] = 0.2 + 0.7 * confidence
    _draw_grey(axis, explanation.image)
    axis.imshow(cells, extent=_frame(explanation.image), interpolation="nearest")
    height, width = explanation.image.shape[:2]
    rows, columns = best.shape
    if rows * columns <= 100:
        for i, j in np.ndindex(rows, columns):
            axis.text(
                (j + 0.5) * width / columns,
                (i + 0.5) * height / rows,
                f"{100 * confidence[i, j]:.0f}",
                ha="center",
                va="center",
                fontsize=7,
                color="white",
                path_effects=[withStroke(linewidth=1.5, foreground="black")],
            )
    shown = list(colours.items())[: len(CELL_COLOURS)]
    handles = [
        Patch(color=colour, label=wrap(explanation.class_names[label]))
        for label, colour in shown
    ]
    if len(colours) > len(shown):
        others = len(colours) - len(shown)
        handles.append(Patch(color=OTHER_COLOUR, label=f"{others} more classes"))
    axis.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)


def _free_name(title, taken):
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
