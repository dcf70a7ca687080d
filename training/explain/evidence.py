"""Evidence of a localiser for classes, drawn over the image for every branch.

Convention: cell (i, j) of a branch saw the window of its patch size that begins at
(offset + stride i, offset + stride j). Maps are drawn so that the value of a cell lies
at the centre of its window; they reach half a stride beyond the outermost centres, and
so do not cover the border of the image.
"""

import dataclasses

import numpy as np
from matplotlib.patches import Rectangle

from keras_attn._checks import pair
from keras_attn.models.localizer import branches_of
from keras_attn.training import drawing
from keras_attn.training.explain.explanation import Explanation, image_sheet
from keras_attn.training.explain.localizers import check_evidence
from keras_attn.training.runs.outputs import outputs_of, softmax, with_outputs

measurable = False
# Evidence for a class in red, evidence against it in blue; attention in one colour.
EVIDENCE_COLOURS = "RdBu_r"
ATTENTION_COLOURS = "inferno"
OPACITY = 0.7
NOTE = (
    "A point of a map stands for the window around it, so maps end half a window from "
    "the border."
)


@dataclasses.dataclass(frozen=True)
class BranchMaps:
    """Maps of one branch of a localiser for one image.

    Args:
        patch_size, stride, offset: `(rows, columns)`, pixels.
        logits: `(classes,)` of this branch.
        evidence: `(h, w, classes)`, the part of the logits that each cell adds.
        attention: `(h, w)`, summing to one, or `None`.
    """

    patch_size: tuple
    stride: tuple
    offset: tuple
    logits: np.ndarray
    evidence: np.ndarray
    attention: np.ndarray | None

    @property
    def name(self):
        """Its patch size in words."""
        height, width = self.patch_size
        return f"{height} x {width} pixels"

    @property
    def probabilities(self):
        return softmax(self.logits)

    def region(self):
        """Edges of the drawn map in pixels of the image: top, left, bottom, right."""
        cells = np.array(self.evidence.shape[:2])
        stride = np.array(self.stride)
        start = np.array(self.offset) + (np.array(self.patch_size) - stride) / 2
        return (*start.tolist(), *(start + cells * stride).tolist())

    def relative_attention(self):
        """The attention in multiples of an equal share for every cell."""
        return self.attention * self.attention.size


@dataclasses.dataclass(frozen=True)
class EvidenceExplanation(Explanation):
    """Evidence and attention of a localiser for one image.

    Args:
        branches: List of `BranchMaps`, the smallest patches first.
    """

    branches: list[BranchMaps]

    def deciding(self):
        """The `BranchMaps` whose probabilities are the image's."""
        return min(
            self.branches,
            key=lambda each: abs(each.probabilities - self.probabilities).max(),
        )


def explain(subject, images, titles=None, batch_size=32):
    """See `Explainer.explain`; of a localiser.

    It has `logits` and, for its branches, `evidence_...`, `logits_...` and optionally
    `attention_...`.
    """
    model = subject.model
    check_evidence(model)
    maps = ("logits", "evidence_", "attention_")
    model = with_outputs(
        model, [name for name in model.output if name.startswith(maps)]
    )
    outputs = outputs_of(model, images, batch_size)
    probabilities = softmax(outputs["logits"])
    branches = branch_maps(branches_of(model), outputs)
    return EvidenceExplanation.of_images(
        subject, images, titles, probabilities, branches
    )


def branch_maps(branches, outputs):
    """The `BranchMaps` of every image.

    Args:
        branches: The branches from `branches_of`.
        outputs: Dict of a localiser's outputs, from `outputs_of`.

    Returns:
        For each image a list, one entry per branch.
    """
    columns = []
    for branch in branches:
        name = branch["name"]
        geometry = [
            pair(key, branch[key]) for key in ("patch_size", "stride", "offset")
        ]
        evidence = outputs[f"evidence_{name}"]
        attention = outputs.get(f"attention_{name}")
        attention = [None] * len(evidence) if attention is None else attention[..., 0]
        logits = outputs[f"logits_{name}"]
        columns.append(
            [
                BranchMaps(*geometry, *each)
                for each in zip(logits, evidence, attention, strict=True)
            ]
        )
    return [list(row) for row in zip(*columns, strict=True)]


def picture(explanation, labels):
    """The evidence for the classes and the attention, one row per branch."""
    columns = len(labels) + 1 + _has_attention(explanation.branches)
    figure, axes = drawing.grid(
        len(explanation.branches), columns, explanation.image, 0.85, (0.5, 0.6)
    )
    figure.suptitle(explanation.decision(), fontsize=12)
    figure.supxlabel(NOTE, fontsize=8)
    drawn_at = 1 + len(labels)
    attended = highest_attention(explanation.branches)
    for line, branch in zip(axes, explanation.branches, strict=True):
        drawing.draw_image(line[0], explanation.image)
        draw_window(line[0], explanation.image, branch)
        decides = branch is explanation.deciding()
        line[0].set_title(
            f"{'deciding: ' if decides else ''}windows of {branch.name}",
            fontsize=9,
            fontweight="bold" if decides else "normal",
        )
        limit = highest_evidence([branch], labels)
        for axis, label in zip(line[1:drawn_at], labels, strict=True):
            draw_evidence(axis, explanation.image, branch, label, limit)
            axis.set_title(explanation.caption(label, branch.probabilities), fontsize=9)
        evidence_bar(figure, line[drawn_at - 1])
        for axis in line[drawn_at:]:
            draw_attention(axis, explanation.image, branch, attended)
            attention_bar(figure, axis)
            axis.set_title("attention", fontsize=9)
    return figure


def sheet(explanations, rows):
    """All images, one per row, with the evidence of the most confident branch.

    The first class of an image chooses the branch.
    """
    figure, axes = image_sheet(explanations, len(rows[0]) + 1)
    for line, explanation, labels in zip(axes, explanations, rows, strict=True):
        branch = max(
            explanation.branches, key=lambda each: each.probabilities[labels[0]]
        )
        limit = highest_evidence([branch], labels)
        for axis, label in zip(line[1:], labels, strict=True):
            draw_evidence(axis, explanation.image, branch, label, limit)
            caption = explanation.caption(label, branch.probabilities)
            axis.set_title(f"{caption}\n{branch.name}", fontsize=8)
        evidence_bar(figure, line[-1])
    return figure


def _has_attention(branches):
    return all(branch.attention is not None for branch in branches)


# ---- maps over an image ----------------------------------------------------------


def highest_evidence(branches, labels):
    """End of a colour scale that fits all these maps; zero lies in its middle."""
    highest = max(abs(branch.evidence[..., labels]).max() for branch in branches)
    return float(highest) or 1.0


def highest_attention(branches):
    """End of a colour scale of the attention of all branches, or `None`."""
    if not _has_attention(branches):
        return None
    return max(float(branch.relative_attention().max()) for branch in branches)


def draw_evidence(axis, image, branch, label, limit):
    """The cells' parts of a class's logit, from -limit to limit."""
    values = branch.evidence[..., label]
    _draw_map(axis, image, branch, values, EVIDENCE_COLOURS, -limit, limit)


def draw_attention(axis, image, branch, limit):
    """The relative attention, from 0 to limit."""
    values = branch.relative_attention()
    _draw_map(axis, image, branch, values, ATTENTION_COLOURS, 0, limit)


def _draw_map(axis, image, branch, values, colours, lowest, highest):
    drawing.draw_grey(axis, image)
    top, left, bottom, right = branch.region()
    height, width = image.shape[:2]
    smooth = drawing.upsample(values, *(8 * np.array(values.shape)))
    axis.imshow(
        smooth,
        extent=(left, right, bottom, top),
        cmap=colours,
        vmin=lowest,
        vmax=highest,
        alpha=OPACITY,
        interpolation="nearest",
    )
    axis.set(xlim=(0, width), ylim=(height, 0))


def draw_window(axis, image, branch):
    """The outline of one window, in the middle of the image, to show its size."""
    height, width = branch.patch_size
    corner = ((image.shape[1] - width) / 2, (image.shape[0] - height) / 2)
    for colour, style in (("black", "-"), ("white", "--")):
        axis.add_patch(
            Rectangle(corner, width, height, fill=False, edgecolor=colour, ls=style)
        )


def evidence_bar(figure, axis, named=True):
    """The scale of the evidence beside a panel; named: with its meaning."""
    text = "evidence: what a window adds\nto the class's logit"
    drawing.colour_bar(figure, axis, text if named else "")


def attention_bar(figure, axis):
    """The scale of the attention beside a panel."""
    drawing.colour_bar(figure, axis, "attention (1: equal for all windows)")
