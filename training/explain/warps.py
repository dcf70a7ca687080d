"""Warping fields drawn over the image: the places that features are taken from.

Convention: by a field (dy, dx) in cells, the output cell (i, j) shows the map's
(i + dy, j + dx). Cell (i, j) is drawn at the centre of its region, see
`keras_attn.training.drawing`. A colour stands for an output cell, the same in every
picture: points of one colour in different images are taken to the same place.
"""

import dataclasses

import keras
import numpy as np
from matplotlib.collections import LineCollection

from keras_attn.ops.sampling import cell_grid, warp
from keras_attn.training import drawing
from keras_attn.training.explain.explanation import (
    Explanation,
    draw_probabilities,
    image_sheet,
)
from keras_attn.training.runs.outputs import outputs_of, softmax

measurable = False
# The layers of `keras_attn.models.warped_classifier` before and behind the warp.
FEATURES, WARPED = "features", "warped"
GROUPS_SHOWN = 4
# Of the upper left, upper right, lower left and lower right cell; between, mixtures.
CORNER_COLOURS = ("#E6194B", "#FFD400", "#3050F8", "#00B050")
NOTE = (
    "A point lies where a group takes a cell of its warped map from; its colour is "
    "that of the cell in the first panel."
)


@dataclasses.dataclass(frozen=True)
class WarpExplanation(Explanation):
    """Warping fields of the groups of channels for one image.

    Args:
        fields: `(h, w, G, 2)`, displacements in cells.
        before, after: `(h, w, G)`, mean activation of every group's channels before
            and behind the warp, or `None`.
        groups: The groups to draw.
    """

    fields: np.ndarray
    before: np.ndarray | None
    after: np.ndarray | None
    groups: tuple

    def points(self, group=None):
        """Pixels (y, x) that output cells come from, or their own: `(h, w, 2)`."""
        cells = self.fields.shape[:2]
        places = np.asarray(cell_grid(*cells))
        if group is not None:
            places = places + self.fields[:, :, group]
        return (places + 0.5) * np.divide(self.image.shape[:2], cells)

    def sampled(self, group):
        """The image as the group's field moves its map, black outside: float, 0..1."""
        size = self.image.shape[:2]
        scale = np.divide(size, self.fields.shape[:2])
        field = drawing.upsample(self.fields[:, :, group], *size) * scale
        image = keras.ops.convert_to_tensor(self.image[None] / 255, "float32")
        field = keras.ops.convert_to_tensor(field[None, :, :, None], "float32")
        moved = keras.ops.convert_to_numpy(warp(image, field, padding="zeros"))[0]
        return np.clip(moved, 0, 1)


def explain(subject, images, titles=None, batch_size=32):
    """See `Explainer.explain`; of a model with `logits` and `fields`.

    The layers `features` and `warped` are drawn where it has them. All explanations
    show the same groups, see `distinct_groups`.
    """
    model = subject.model
    if "fields" not in model.output:
        raise ValueError(
            "Expected a model with an output 'fields', which method "
            f"volumetric_transformer gives. Received: {model.name!r} with outputs "
            f"{list(model.output)}"
        )
    outputs = outputs_of(_with_maps(model), images, batch_size)
    fields = outputs["fields"]
    before, after = (
        group_means(outputs[name], fields.shape[3])
        if name in outputs
        else [None] * len(fields)
        for name in (FEATURES, WARPED)
    )
    return WarpExplanation.of_images(
        subject,
        images,
        titles,
        softmax(outputs["logits"]),
        fields,
        before,
        after,
        [distinct_groups(fields)] * len(fields),
    )


def _with_maps(model):
    """The model with logits, fields and, if it has them, the maps as outputs."""
    outputs = {name: model.output[name] for name in ("logits", "fields")}
    shape = outputs["fields"].shape
    maps = {
        layer.name: layer.output
        for layer in model.layers
        if layer.name in (FEATURES, WARPED)
    }
    fit = all(
        len(each.shape) == 4
        and each.shape[1:3] == shape[1:3]
        and each.shape[3] % shape[3] == 0
        for each in maps.values()
    )
    if len(maps) == 2 and fit:
        outputs |= maps
    return keras.Model(model.input, outputs, name=model.name)


def group_means(maps, groups):
    """Means of consecutive channels: `(N, h, w, K)` to `(N, h, w, groups)`."""
    return maps.reshape(*maps.shape[:3], groups, -1).mean(axis=-1)


def distinct_groups(fields, count=GROUPS_SHOWN):
    """Groups that show the variety of fields `(N, h, w, G, 2)`, in rising order.

    The first is the one whose field varies most, over cells and images; each next one
    is the one that differs most from the nearest of those before it.
    """
    fields = np.moveaxis(np.asarray(fields, "float64"), 3, 0)
    fields = fields.reshape(len(fields), -1, 2)
    deviation = fields - fields.mean(axis=1, keepdims=True)
    chosen = [int(np.square(deviation).sum(axis=(1, 2)).argmax())]
    nearest = np.full(len(fields), np.inf)
    while len(chosen) < min(count, len(fields)):
        apart = np.square(fields - fields[chosen[-1]]).sum(axis=(1, 2))
        nearest = np.minimum(nearest, apart)
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
    return tuple(sorted(chosen))


# ---- pictures ----------------------------------------------------------------------


def picture(explanation, labels):
    """One column per group: its points, the image, its map before and behind the warp.

    The first column has the colours of the cells and the classes' probabilities.
    """
    has_maps = explanation.before is not None
    rows, columns = 4 if has_maps else 2, 1 + len(explanation.groups)
    gaps, margins = (0.2, 0.35), (0.8, 0.8)
    figure, axes = drawing.grid(
        rows, columns, explanation.image, gaps=gaps, margins=margins
    )
    figure.suptitle(explanation.decision(), fontsize=12)
    figure.supxlabel(NOTE, fontsize=9)
    drawing.draw_image(axes[0, 0], explanation.image)
    draw_points(axes[0, 0], explanation)
    axes[0, 0].set_title("colours of the cells", fontsize=9)
    draw_probabilities(axes[1, 0], explanation, labels)
    for column, group in zip(axes.T[1:], explanation.groups, strict=True):
        drawing.draw_grey(column[0], explanation.image)
        draw_points(column[0], explanation, group)
        column[0].set_title(_group_name(explanation, group), fontsize=9)
        drawing.draw_image(column[1], explanation.sampled(group))
        column[1].set_title("the image, moved the same way", fontsize=9)
    if has_maps:
        for column, group in zip(axes.T[1:], explanation.groups, strict=True):
            _draw_maps(figure, column[2:], explanation, group)
        if len(explanation.groups) > 1:
            _draw_maps(figure, axes[2:, 0], explanation)
        else:
            for axis in axes[2:, 0]:
                axis.set_axis_off()
    return figure


def sheet(explanations, rows):
    """All images, one per row: the first class, and the points of the same groups."""
    figure, axes = image_sheet(explanations, 1 + len(explanations[0].groups), NOTE)
    for line, explanation, labels in zip(axes, explanations, rows, strict=True):
        draw_points(line[0], explanation)
        line[0].set_title(explanation.heading(labels[0]), fontsize=8)
        for axis, group in zip(line[1:], explanation.groups, strict=True):
            drawing.draw_grey(axis, explanation.image)
            draw_points(axis, explanation, group)
            axis.set_title(_group_name(explanation, group), fontsize=8)
    return figure


def cell_colours(height, width):
    """Bright mixtures of the corners' colours, one per cell: `(height, width, 3)`."""
    corners = [[int(name[i : i + 2], 16) for i in (1, 3, 5)] for name in CORNER_COLOURS]
    corners = np.reshape(corners, (2, 2, 3)) / 255
    y, x = (
        np.linspace(0, 1, size) if size > 1 else np.full(1, 0.5)
        for size in (height, width)
    )
    along_rows = np.stack([1 - y, y], axis=1)
    along_columns = np.stack([1 - x, x], axis=1)
    mixed = np.einsum("ha,wb,abc->hwc", along_rows, along_columns, corners)
    return mixed / mixed.max(axis=-1, keepdims=True)


def draw_points(axis, explanation, group=None):
    """The grid of a group's source points over an image, or the regular grid."""
    points = explanation.points(group)[..., ::-1]
    rows, columns = points.shape[:2]
    lines = [*points, *np.swapaxes(points, 0, 1)]
    axis.add_collection(
        LineCollection(lines, colors="black", linewidths=0.4, alpha=0.5)
    )
    # As large as the space between the points of the regular grid allows.
    size = np.clip(220.0 / max(rows, columns), 3.0, 22.0)
    axis.scatter(
        *points.reshape(-1, 2).T,
        s=size,
        c=cell_colours(rows, columns).reshape(-1, 3),
        edgecolors="black",
        linewidths=0.4,
        zorder=3,
    )
    left, right, bottom, top = drawing.frame(explanation.image)
    axis.set(xlim=(left, right), ylim=(bottom, top))


def _group_name(explanation, group):
    groups = explanation.fields.shape[2]
    moved = np.linalg.norm(explanation.fields[:, :, group], axis=-1).mean()
    name = "all channels" if groups == 1 else f"group {group + 1} of {groups}"
    return f"{name}: moved by {moved:.1f} cells"


def _draw_maps(figure, axes, explanation, group=None):
    """Mean activation before, over the image, and behind the warp, on one scale."""
    before, after = (
        maps.mean(axis=-1) if group is None else maps[..., group]
        for maps in (explanation.before, explanation.after)
    )
    limits = min(before.min(), after.min()), max(before.max(), after.max())
    # The warped map stands by itself: its cells are not those of the image.
    for axis, maps, opacity in (
        (axes[0], before, drawing.OPACITY),
        (axes[1], after, 1.0),
    ):
        drawing.draw_map(axis, explanation.image, maps, limits, opacity=opacity)
        drawing.colour_bar(figure, axis)
    subject = "all groups" if group is None else "activation"
    axes[0].set_title(f"{subject} before", fontsize=9)
    axes[1].set_title(f"{subject} after the warp", fontsize=9)
