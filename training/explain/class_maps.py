"""Class maps: the probabilities of classes in each cell, by its patch logits.

Maps are `(height, width, classes)`, see the convention of
`keras_attn.training.drawing`.
"""

import dataclasses

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from keras_attn.training import drawing
from keras_attn.training.explain.explanation import Explanation, image_sheet
from keras_attn.training.runs.outputs import outputs_of, softmax

measurable = True
# Colours of classes that differ for the colour-blind too (Okabe and Ito), then grey
# for whatever is left.
CELL_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00")
OTHER_COLOUR = "#999999"
SCALE = "probability in the cell's region"


@dataclasses.dataclass(frozen=True)
class ClassExplanation(Explanation):
    """Class maps of one image.

    Args:
        maps: `(h, w, classes)`, probabilities of each cell.
    """

    maps: np.ndarray


def explain(subject, images, titles=None, batch_size=128):
    """See `Explainer.explain`; of a model with `logits` and `patch_logits`."""
    model = subject.model
    if "patch_logits" not in model.output:
        raise ValueError(
            "Expected a model with an output 'patch_logits', which a recipe of row "
            "class_embedding, class_embedding_concat or aux gives. Received: "
            f"{model.name!r} with outputs {list(model.output)}"
        )
    outputs = outputs_of(model, images, batch_size)
    kept = {name: outputs.get(name) for name in ("logits", "probabilities")}
    probabilities = subject.probabilities_of(**kept)
    maps = softmax(outputs["patch_logits"])
    return ClassExplanation.of_images(subject, images, titles, probabilities, maps)


def maps(subject, images, labels, batch_size=8):
    """`(images, classes, height, width)` of labels `(images, classes)`."""
    outputs = subject.model.predict(images, batch_size=batch_size, verbose=0)
    cells = np.moveaxis(softmax(outputs["patch_logits"]), -1, 1)
    chosen = np.take_along_axis(cells, np.asarray(labels)[:, :, None, None], axis=1)
    size = images.shape[1:3]
    return np.stack([[drawing.upsample(cell, *size) for cell in row] for row in chosen])


def picture(explanation, labels):
    """The image, one map per class, and the most probable class of every cell."""
    image = explanation.image
    figure, (axes,) = drawing.grid(1, len(labels) + 2, image, margins=(3.2, 1.2))
    figure.suptitle(explanation.decision(), fontsize=12)
    drawing.draw_image(axes[0], image)
    axes[0].set_title("image", fontsize=9)
    limit = explanation.maps[..., labels].max()
    _draw_maps(figure, axes[1:-1], explanation, labels, limit, 9)
    _draw_cells(axes[-1], explanation)
    axes[-1].set_title("most probable class of each cell", fontsize=9)
    return figure


def sheet(explanations, rows):
    """All images, one per row, with their class maps on one colour scale."""
    figure, axes = image_sheet(explanations, len(rows[0]) + 1)
    drawn = list(zip(axes[:, 1:], explanations, rows, strict=True))
    limit = max(each.maps[..., labels].max() for _, each, labels in drawn)
    for line, explanation, labels in drawn:
        _draw_maps(figure, line, explanation, labels, limit, 8)
    return figure


def _draw_maps(figure, axes, explanation, labels, limit, size):
    for axis, label in zip(axes, labels, strict=True):
        drawing.draw_map(
            axis, explanation.image, explanation.maps[..., label], (0, limit)
        )
        axis.set_title(explanation.caption(label), fontsize=size)
    drawing.colour_bar(figure, axes[-1], SCALE)


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
    drawing.draw_grey(axis, explanation.image)
    axis.imshow(cells, extent=drawing.frame(explanation.image), interpolation="nearest")
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
        Patch(color=colour, label=drawing.wrap(explanation.name(label)))
        for label, colour in shown
    ]
    if len(colours) > len(shown):
        others = len(colours) - len(shown)
        handles.append(Patch(color=OTHER_COLOUR, label=f"{others} more classes"))
    axis.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
