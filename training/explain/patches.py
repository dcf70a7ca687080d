"""Pictures of localised patches: boxes, maps of all branches, crops."""

import math

from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from keras_attn.training.drawing import (
    draw_image,
    new_figure,
    panel_inches,
    wrap,
)
from keras_attn.training.drawing import sheet as empty_sheet
from keras_attn.training.explain import evidence

# Colours of the patches in their order, again from the start where there are more.
BOX_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7")
CROPS_PER_LINE = 8
OUTLINE = [withStroke(linewidth=2, foreground="black")]


def picture(localized):
    """The image with its boxes, the maps of all branches, and the cut-out patches."""
    width, height = panel_inches(localized.image)
    rows = [_draw_evidence_row]
    if evidence.highest_attention(localized.branches) is not None:
        rows.append(_draw_attention_row)
    lines = math.ceil(max(1, len(localized.boxes)) / CROPS_PER_LINE)
    columns = len(localized.branches)
    figure = new_figure(
        (2 * width + columns * (width + 0.4) + 0.6, 2 * height + 1.0 + 1.7 * lines)
    )
    figure.suptitle(localized.decision(), fontsize=13)
    upper, lower = figure.subfigures(2, 1, height_ratios=(2 * height, 1.6 * lines))
    left, right = upper.subfigures(
        1, 2, width_ratios=(2 * width, columns * (width + 0.4) + 0.6)
    )
    axis = left.subplots()
    draw_boxes(axis, localized)
    axis.set_title(_patches_title(localized), fontsize=10)
    right.supxlabel(evidence.NOTE, fontsize=8)
    axes = right.subplots(len(rows), columns, squeeze=False)
    for draw, line in zip(rows, axes, strict=True):
        draw(right, line, localized)
    _draw_crops(lower.subplots(lines, CROPS_PER_LINE, squeeze=False).ravel(), localized)
    return figure


def sheet(all_localized):
    """All images, one per row: boxes, the deciding branch's evidence, crops."""
    crops = min(CROPS_PER_LINE, max(len(each.boxes) for each in all_localized))
    ratios = [1.0] * 2 + [0.6] * max(1, crops)
    image = all_localized[0].image
    figure, axes = empty_sheet(len(all_localized), len(ratios), image, ratios=ratios)
    for line, localized in zip(axes, all_localized, strict=True):
        draw_boxes(line[0], localized)
        title = f"{wrap(localized.title)}\n{wrap(localized.answer())}"
        line[0].set_title(title, fontsize=8)
        _draw_chosen(line[1], localized)
        _draw_crops(line[2:], localized)
    return figure


def draw_boxes(axis, localized):
    """The image with numbered boxes, the last one lowest."""
    draw_image(axis, localized.image)
    numbered = list(enumerate(localized.boxes))
    few = len(numbered) <= CROPS_PER_LINE
    for number, (top, left, bottom, right) in reversed(numbered):
        colour = BOX_COLOURS[number % len(BOX_COLOURS)]
        # Inside the box's edge, so that boxes at the border are seen whole.
        box = Rectangle(
            (left, top), right - left, bottom - top, fill=False, edgecolor=colour, lw=2
        )
        box.set_path_effects([withStroke(linewidth=3.5, foreground="black")])
        axis.add_patch(box)
        axis.text(
            max(left, 0) + 1,
            max(top, 0) + 1,
            # Scores of many boxes would hide each other.
            f"{number + 1}: {localized.scores[number]:.2f}" if few else f"{number + 1}",
            ha="left",
            va="top",
            fontsize=8,
            color="black",
            bbox={"facecolor": colour, "edgecolor": "black", "pad": 1.5, "lw": 0.5},
        )
    height, width = localized.image.shape[:2]
    axis.set(xlim=(0, width), ylim=(height, 0))


def _patches_title(localized):
    if localized.chosen is None:
        return "sure without patches"
    count = len(localized.boxes)
    label = localized.evidence_label
    return (
        f"{count} patch{'es' if count != 1 else ''} of {localized.chosen.name}, by "
        f"evidence for {localized.name(label)}\n(logit: "
        f"{localized.chosen.logits[label]:.2f})"
    )


def _draw_chosen(axis, localized):
    """The map that the patches were chosen on."""
    branch, label = localized.chosen, localized.evidence_label
    if branch is None:
        axis.set_axis_off()
        return
    limit = evidence.highest_evidence([branch], [label])
    evidence.draw_evidence(axis, localized.image, branch, label, limit)
    _mark_centres(axis, localized)
    axis.set_title(
        f"evidence for {wrap(localized.name(label))}\n{branch.name}", fontsize=8
    )


def _draw_evidence_row(figure, axes, localized):
    label = localized.evidence_label
    for axis, branch in zip(axes, localized.branches, strict=True):
        # A scale each: the more windows a branch has, the less each one adds.
        limit = evidence.highest_evidence([branch], [label])
        evidence.draw_evidence(axis, localized.image, branch, label, limit)
        evidence.evidence_bar(figure, axis, named=branch is localized.branches[-1])
        chosen = branch is localized.chosen
        if chosen:
            _mark_centres(axis, localized)
        best = branch.probabilities.argmax()
        axis.set_title(
            f"{'chosen: ' if chosen else ''}{branch.name}\n"
            f"{wrap(localized.name(best))} "
            f"({100 * branch.probabilities[best]:.1f} %)",
            fontsize=9,
            fontweight="bold" if chosen else "normal",
        )
    _row_label(axes[0], f"evidence for {wrap(localized.name(label), 20)}")


def _draw_attention_row(figure, axes, localized):
    limit = evidence.highest_attention(localized.branches)
    for axis, branch in zip(axes, localized.branches, strict=True):
        evidence.draw_attention(axis, localized.image, branch, limit)
    evidence.attention_bar(figure, axes[-1])
    _row_label(axes[0], "attention")


def _row_label(axis, text):
    axis.text(
        -0.03,
        0.5,
        text,
        transform=axis.transAxes,
        rotation=90,
        ha="right",
        va="center",
        fontsize=9,
    )


def _mark_centres(axis, localized):
    """The numbers of the patches at their centres, where their evidence is drawn."""
    for number, box in enumerate(localized.boxes, 1):
        y, x = (box[:2] + box[2:]) / 2
        axis.text(
            x,
            y,
            str(number),
            ha="center",
            va="center",
            fontsize=8,
            color="white",
            path_effects=OUTLINE,
        )


def _draw_crops(axes, localized):
    """The patches with their scores; what lies outside of the image is black."""
    for axis in axes:
        axis.set_axis_off()
    # A sheet has room for the first ones only.
    for number, (axis, crop) in enumerate(zip(axes, localized.crops(), strict=False)):
        draw_image(axis, crop)
        height, width = crop.shape[:2]
        colour = BOX_COLOURS[number % len(BOX_COLOURS)]
        axis.add_patch(
            Rectangle((0, 0), width, height, fill=False, edgecolor=colour, lw=3)
        )
        title = f"{number + 1}: evidence {localized.scores[number]:.2f}"
        if localized.patch_probabilities is not None:
            row = localized.patch_probabilities[number]
            best = row.argmax()
            title += f"\n{wrap(localized.name(best))} ({100 * row[best]:.0f} %)"
        axis.set_title(title, fontsize=8)
