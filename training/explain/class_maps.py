"""Where in an image a model sees which class: patch logits drawn as class maps.

Maps are `(height, width, classes)`, see the convention of
`keras_attn.training.drawing`.
"""

import dataclasses

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from keras_attn.training.drawing import (
    colour_bar,
    draw_grey,
    draw_image,
    draw_map,
    frame,
    new_figure,
    panel_inches,
    wrap,
)
from keras_attn.training.explain.explanation import Explanation
from keras_attn.training.runs.outputs import outputs_of, softmax

# Colours of classes that differ for the colour-blind too (Okabe and Ito), then grey
# for whatever is left.
CELL_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00")
OTHER_COLOUR = "#999999"
SCALE = "probability in the cell's region"


@dataclasses.dataclass(frozen=True)
class ClassExplanation(Explanation):
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

    def caption(self, label):
        """A class's name and probability."""
        return (
            f"{wrap(self.class_names[label])}\n{100 * self.probabilities[label]:.1f} %"
        )


def explain_images(model, images, class_names, titles, batch_size=128):
    """The patch logits of a model as class maps.

    Args:
        model: Model with the outputs `logits` and `patch_logits`.
        images: `(examples, height, width, 3)`, 8-bit, of the model's size.
        class_names: One name a class.
        titles: One name an image.
        batch_size: Images at a time.

    Returns:
        A list of `ClassExplanation`.

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
        ClassExplanation(image, row, cells, tuple(class_names), title)
        for image, row, cells, title in zip(
            np.asarray(images), probabilities, maps, titles, strict=True
        )
    ]


def picture(explanation, labels):
    """The image, one map a class, and the most probable class of every cell.

    Args:
        explanation: `ClassExplanation`.
        labels: Classes to draw, in this order.

    Returns:
        A matplotlib `Figure`.
    """
    panel_width, panel_height = panel_inches(explanation.image)
    panels = len(labels) + 2
    figure = new_figure((panels * panel_width + 3.2, panel_height + 1.2))
    axes = figure.subplots(1, panels, squeeze=False)[0]
    best = explanation.top(1)[0]
    percent = 100 * explanation.probabilities[best]
    figure.suptitle(
        f"{explanation.title}: {explanation.class_names[best]} ({percent:.1f} %)",
        fontsize=12,
    )
    draw_image(axes[0], explanation.image)
    axes[0].set_title("image", fontsize=9)
    limit = explanation.maps[..., labels].max()
    for axis, label in zip(axes[1:], labels, strict=False):
        drawn = _draw_map(axis, explanation, label, limit)
        axis.set_title(explanation.caption(label), fontsize=9)
    colour_bar(figure, drawn, axes[-2], SCALE)
    _draw_cells(axes[-1], explanation)
    axes[-1].set_title("most probable class of each cell", fontsize=9)
    return figure


def sheet(explanations, rows):
    """All images, one a row, with their class maps on one colour scale.

    Args:
        explanations: List of `ClassExplanation`.
        rows: For each the labels of the classes to draw, equally many.

    Returns:
        A matplotlib `Figure`.
    """
    panel_width, panel_height = panel_inches(explanations[0].image)
    columns = len(rows[0]) + 1
    figure = new_figure(
        (0.7 * columns * panel_width + 1.2, len(rows) * (0.7 * panel_height + 0.75))
    )
    axes = figure.subplots(len(rows), columns, squeeze=False)
    limit = max(
        explanation.maps[..., labels].max()
        for explanation, labels in zip(explanations, rows, strict=True)
    )
    for line, explanation, labels in zip(axes, explanations, rows, strict=True):
        draw_image(line[0], explanation.image)
        line[0].set_title(wrap(explanation.title), fontsize=8)
        for axis, label in zip(line[1:], labels, strict=True):
            drawn = _draw_map(axis, explanation, label, limit)
            axis.set_title(explanation.caption(label), fontsize=8)
        colour_bar(figure, drawn, line[-1], SCALE)
    return figure


def _draw_map(axis, explanation, label, limit):
    return draw_map(axis, explanation.image, explanation.maps[..., label], limit)


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
    draw_grey(axis, explanation.image)
    axis.imshow(cells, extent=frame(explanation.image), interpolation="nearest")
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
