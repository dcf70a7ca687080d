"""Overlap of the patches with the object, on data whose boxes are known.

Metrics, in per cent, over the test images:

- `patch_centres_on_object`: patches whose centre lies in the object's box,
- `patch_pixels_on_object`: share of the patches' pixels that show the object,
- `object_covered`: share of the object's pixels that lie in a patch,
- `parts_covered`: share of the area of the visible parts' boxes in a patch.

And `patches_per_image` and `image_covered`, which put them into proportion.
"""

import numpy as np

from keras_attn.training.experiments.measures import held_out
from keras_attn.training.experiments.protocol import PERCENT, RowValue
from keras_attn.training.experiments.studies._annotations import annotated
from keras_attn.training.experiments.studies._rankings import select
from keras_attn.training.trained import load_trained

UNITS = {"patches_per_image": "patches"}


def study(runs, sources):
    """The metrics of every ranking, for the run of row `anchornet`; see `Study`."""
    run = runs["anchornet"]
    names = ("box", "part_boxes", "mask")
    _, source, images, indices = annotated(run, sources["anchornet"], names)
    chosen = indices[held_out(indices)]
    localizer = load_trained(run.workdir, "last").model
    selections, _ = select(
        localizer,
        images[chosen],
        **run.recipe.options.patch_settings(),
        seed=run.recipe.seed,
    )
    truth = {name: array[chosen] for name, array in source.annotations.items()}
    return [
        RowValue(ranking, metric, value, UNITS.get(metric, PERCENT))
        for ranking, selection in selections.items()
        for metric, value in object_hits(selection, truth).items()
    ]


def object_hits(selection, truth):
    """The metrics of one `Selection`; `truth` has `box`, `part_boxes`, `mask`."""
    masks = truth["mask"]
    height, width = masks.shape[1:]
    union = selection.union(height, width)
    counts = selection.counts
    valid = selection.boxes[..., 0] >= 0
    top, left, bottom, right = np.moveaxis(truth["box"][:, None, :], -1, 0)
    y = (selection.boxes[..., 0] + selection.boxes[..., 2]) / 2
    x = (selection.boxes[..., 1] + selection.boxes[..., 3]) / 2
    inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
    pixels = [
        patch_pixels(masks[i], selection.boxes[i][valid[i]]) for i in range(len(masks))
    ]
    return {
        "patch_centres_on_object": 100 * inside[valid].mean(),
        "patch_pixels_on_object": 100 * np.concatenate(pixels).mean(),
        "object_covered": 100 * _covered(masks, union).mean(),
        "parts_covered": 100 * parts_covered(truth["part_boxes"], union),
        "image_covered": 100 * union.mean(),
        "patches_per_image": counts.mean(),
    }


def patch_pixels(mask, boxes):
    """Share of every box's pixels where the mask is set."""
    sums = np.pad(mask.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    y0, x0, y1, x1 = boxes.T
    inside = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    return inside / ((y1 - y0) * (x1 - x0))


def parts_covered(part_boxes, union):
    """Mean over all visible parts of the share of their boxes that is covered."""
    shares = [
        union[i, y0:y1, x0:x1].mean()
        for i, boxes in enumerate(part_boxes)
        for y0, x0, y1, x1 in boxes
        if y0 >= 0
    ]
    return float(np.mean(shares))


def _covered(masks, union):
    sizes = masks.sum(axis=(1, 2))
    visible = sizes > 0
    return (masks & union).sum(axis=(1, 2))[visible] / sizes[visible]
