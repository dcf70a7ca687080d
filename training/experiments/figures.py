"""Figures of trained networks, by name.

Figures 3 and 5 of the AnchorNet paper, and figure 4 of attention-masked residuals.
"""

import collections

import numpy as np

from keras_attn._checks import one_of
from keras_attn.training.drawing import draw_image, grid, wrap
from keras_attn.training.experiments import features
from keras_attn.training.experiments.protocol import Drawing
from keras_attn.training.explain import evidence, masks, patches
from keras_attn.training.explain.localize import localize_images
from keras_attn.training.explain.localizers import localizing
from keras_attn.training.trained import load_trained

# Number of held-out images that are evaluated, and of those drawn for every branch.
CANDIDATES = 300
SHOWN = 3
# Number of classes for which an image and its masks are drawn.
CLASSES = 6


def patches_figure(runs, examples, class_names):
    """Figure 3: localised patches, the images of every branch together.

    The first run is a localiser; its most confident right answers are shown.
    """
    localized, counts = _best_of_every_branch(runs, examples, class_names)
    notes = [
        "The most confident right answers of every branch. Of "
        f"{sum(counts.values())} held-out images the branches decide "
        + ", ".join(f"{count} ({name})" for name, count in sorted(counts.items()))
        + "."
    ]
    return Drawing(patches.sheet(localized), notes)


def attention_figure(runs, examples, class_names):
    """Figure 5: the attention maps of all branches; see `patches_figure`."""
    localized, _ = _best_of_every_branch(runs, examples, class_names)
    columns = 1 + len(localized[0].branches)
    image, margins = localized[0].image, (1.2, 0)
    figure, axes = grid(len(localized), columns, image, gaps=(0, 0.6), margins=margins)
    for line, each in zip(axes, localized, strict=True):
        draw_image(line[0], each.image)
        line[0].set_title(
            f"{wrap(each.title)}\ndecides: {each.chosen.name}", fontsize=9
        )
        limit = evidence.highest_attention(each.branches)
        for axis, branch in zip(line[1:], each.branches, strict=True):
            evidence.draw_attention(axis, each.image, branch, limit)
            axis.set_title(f"attention, {branch.name}", fontsize=9)
    return Drawing(figure, ["Attention in multiples of an equal share for every cell."])


def masks_figure(runs, examples, class_names):
    """Figure 4 of attention-masked residuals: the heads' maps, their mean, the masks.

    Of the first run, for the first image of some classes; a note has the variation of
    every block's mask.
    """
    trained = load_trained(next(iter(runs.values())).workdir, "last")
    images, labels = examples
    shown = np.unique(labels, return_index=True)[1][:CLASSES]
    looked_at = np.union1d(shown, np.arange(min(CANDIDATES, len(labels))))
    titles = [class_names[label] for label in labels[looked_at]]
    explained = masks.explain(trained, np.asarray(images[looked_at]), titles)
    chosen = [explained[place] for place in np.searchsorted(looked_at, shown)]
    rows = [each.top(1) for each in chosen]
    figure = masks.sheet(chosen, rows, heads=True)
    notes = [
        f"Standard deviation over the cells of an image, mean over {len(explained)} "
        "images and the channels: attention map "
        + _spread([each.attention[..., None] for each in explained])
    ]
    for block in range(len(explained[0].masks)):
        spread = _spread([each.masks[block] for each in explained])
        notes[0] += f", mask {block + 1} {spread}"
    return Drawing(figure, [notes[0] + "."])


def _spread(maps):
    return f"{np.mean([each.std(axis=(0, 1)).mean() for each in maps]):.3f}"


def _best_of_every_branch(runs, examples, class_names):
    """Some `Localized` of every branch, and how many images each branch decides."""
    trained = load_trained(next(iter(runs.values())).workdir, "last")
    if not any(name.startswith("attention_") for name in trained.model.output):
        raise ValueError(
            "Expected a localiser with attention maps, such as anchornet. "
            f"Received: {trained.path}"
        )
    localizer, _ = localizing(trained)
    images, labels = (part[:CANDIDATES] for part in examples)
    titles = [class_names[label] for label in labels]
    localized = localize_images(localizer, np.asarray(images), titles)
    counts = collections.Counter(each.chosen.name for each in localized)
    right = [
        each
        for each, label in zip(localized, labels, strict=True)
        if each.label == label
    ]
    right.sort(key=lambda each: -each.probabilities.max())
    shown = [
        each
        for branch in range(len(localized[0].branches))
        for each in [each for each in right if each.branch == branch][:SHOWN]
    ]
    return shown or localized[:SHOWN], counts


FIGURES = {
    "tsne": features.tsne_figure,
    "localized_patches": patches_figure,
    "attention_maps": attention_figure,
    "attention_and_masks": masks_figure,
}
# Figure -> function that raises ImportError for a missing package.
REQUIREMENTS = {"tsne": features.require_scikit_learn}


def get_figure(name):
    """The `Figure` of that name.

    Raises:
        ValueError: If there is none; the message names the nearest.
        ImportError: If a package that it needs is missing.
    """
    one_of("figure", name, FIGURES)
    if name in REQUIREMENTS:
        REQUIREMENTS[name]()
    return FIGURES[name]
