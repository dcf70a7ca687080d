"""Alignment of parts between warped maps of one class, on data with known parts.

With a field `G` the output cell `i` shows the input at `i + G(i)`. So a part with its
centre at `c` is shown by the cells whose source is within a cell of `c`, each with the
weight that bilinear sampling gives it, `(1 - |dy|) (1 - |dx|)`; otherwise by the cell
whose source is the nearest. These weights, summing to one, are the place of the part in
the warped map. Metrics, over all pairs of
held-out images of one class in which a part is visible, then over the parts:

- `part_distance`: between the weighted means of the two images' cells, in cells,
- `part_spread`: mean distance between a cell of one image and one of the other, in
  cells. Unlike `part_distance` it is large where a field has the whole map show the
  part, which puts the mean of the cells into the middle for every image,
- `part_ratio`: `part_spread` divided by the same for two different parts. Unlike both
  it does not gain where a field draws all parts together; 1 is no better than chance,
- `part_cells`: output cells that show the part, per cent of all,
- `part_shown`: parts that some cell shows, per cent.

They are means over the groups of the field, and, called `..._best_group`, those of the
group with the lowest ratio for each part, chosen on the validation images (else on the
training images). Rows without fields leave the map as it is, the state that the others
started from: with `G = 0` the mean of the cells is the centre of the part.

Convention: `(y, x)` in cells; cell `i` of `n` lies at pixel `(i + 1/2) size / n`, and
centres beyond the outermost cells count as on them.
"""

import numpy as np

from keras_attn.ops.sampling import cell_grid
from keras_attn.training.experiments.measures import held_out
from keras_attn.training.experiments.protocol import PERCENT, RowValue
from keras_attn.training.experiments.studies._annotations import annotated
from keras_attn.training.runs.outputs import outputs_of, with_outputs
from keras_attn.training.trained import load_trained

FEATURES, FIELDS = "features", "fields"
BATCH = 32
# All other metrics are in per cent.
UNITS = {"part_distance": "cells", "part_spread": "cells", "part_ratio": ""}


def study(runs, sources):
    """The metrics of every run's model of the last epoch; see `Study`."""
    for label, run in runs.items():
        _, source, images, indices = annotated(run, sources[label], ["part_boxes"])
        judged = held_out(indices)
        choosing = "validation" if judged == "test" else "train"
        if not len(indices[choosing]):
            choosing = "train"
        model = load_trained(run.workdir, "last").model
        tables = []
        for split in (choosing, judged):
            chosen = indices[split]
            fields = fields_of(model, images[chosen])
            boxes = source.annotations["part_boxes"][chosen]
            centres = centres_in_cells(boxes, images.shape[1:3], fields.shape[1:3])
            tables.append(pair_table(fields, centres, source.labels[chosen]))
        for metric, value in summary(tables[1], best_groups(tables[0])).items():
            yield RowValue(label, metric, value, _unit(metric))


def fields_of(model, images):
    """The fields of a model, `(N, H, W, G, 2)`; zero where it has none."""
    if FIELDS in model.output:
        model = with_outputs(model, [FIELDS])
        parts = [
            outputs_of(model, np.asarray(images[start : start + BATCH]), BATCH)
            for start in range(0, len(images), BATCH)
        ]
        return np.concatenate([part[FIELDS] for part in parts])
    height, width = model.get_layer(FEATURES).output.shape[1:3]
    return np.zeros((len(images), height, width, 1, 2), "float32")


def centres_in_cells(boxes, image_size, cells):
    """Centres of boxes `(..., 4)` in cells, `(..., 2)`; NaN where a box is absent."""
    boxes = np.asarray(boxes, "float64")
    scale = np.divide(cells, image_size)
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2 * scale - 0.5
    centres = np.clip(centres, 0, np.array(cells) - 1)
    return np.where(boxes[..., :1] < 0, np.nan, centres)


def shown_by(fields, centres):
    """Places of the parts in the warped maps.

    Args:
        fields: `(n, H, W, G, 2)`.
        centres: `(n, P, 2)` in cells, NaN for parts that are absent.

    Returns:
        `(weights, cells)`: weights of the output cells `(n, P, G, H * W)`, summing to
        one, or to zero for parts that are not there; and the number of cells that show
        the part, `(n, P, G)`.
    """
    count, height, width, groups, _ = fields.shape
    grid = np.asarray(cell_grid(height, width))[:, :, None]
    sources = np.reshape(grid + fields, (count, 1, height * width, groups, 2))
    sources = np.swapaxes(sources, 2, 3)
    apart = np.abs(sources - np.nan_to_num(centres)[:, :, None, None])
    weights = np.prod(np.maximum(0, 1 - apart), axis=-1)
    cells = np.sum(weights > 0, axis=-1)
    nearest = np.hypot(apart[..., 0], apart[..., 1]).argmin(axis=-1)
    nearest = np.arange(height * width) == nearest[..., None]
    weights = np.where(cells[..., None] > 0, weights, nearest)
    weights = weights / weights.sum(axis=-1, keepdims=True)
    visible = ~np.isnan(centres[..., 0])[:, :, None]
    return weights * visible[..., None], cells * visible


def pair_table(fields, centres, labels):
    """The metrics of every part and group.

    Args:
        fields: `(N, H, W, G, 2)`.
        centres: `(N, P, 2)`, see `shown_by`.
        labels: `(N,)`.

    Returns:
        Dict of arrays `(P, G)`: `distance`, `spread`, `other`: the spread between the
        part and different ones, `cells` and `shown`, shares of 0..1.

    Raises:
        ValueError: If a part is not visible in two images of any class.
    """
    totals, pairs, others = 0, 0, 0
    for label in np.unique(labels):
        chosen = labels == label
        sums, counts, other_counts = _sums_of_class(fields[chosen], centres[chosen])
        totals = sums + totals
        pairs, others = pairs + counts, others + other_counts
    if not np.all(pairs > 0):
        raise ValueError(
            "Expected every part to be visible in two images of some class. Received: "
            f"pairs of images by part: {pairs.tolist()}"
        )
    distance, spread, other, cells, shown = totals
    visible = np.sum(~np.isnan(centres[..., 0]), axis=0)[:, None]
    return {
        "distance": distance / pairs[:, None],
        "spread": spread / pairs[:, None],
        "other": other / others[:, None],
        "cells": cells / visible / np.prod(fields.shape[1:3]),
        "shown": shown / visible,
    }


def _sums_of_class(fields, centres):
    """Sums over the pairs of images of one class.

    Returns:
        `(sums, pairs, other_pairs)`: `(5, P, G)`, in the order of `pair_table`, the
        last two over images; and `(P,)`, how many pairs the first two, and the third,
        are sums of.
    """
    weights, cells = shown_by(fields, centres)
    grid = np.reshape(cell_grid(*fields.shape[1:3]), (-1, 2))
    between = np.linalg.norm(grid[:, None] - grid, axis=-1)
    visible = ~np.isnan(centres[..., 0])
    means = weights @ grid
    first, second = np.triu_indices(len(fields), 1)
    both = (visible[first] & visible[second])[..., None]
    moved = np.linalg.norm(means[first] - means[second], axis=-1)
    # All pairs of images at once: those of the sums, less an image with itself.
    summed = weights.sum(axis=0)
    spread = np.einsum("pgk,qgk->pqg", summed @ between, summed)
    spread -= np.einsum("npgk,nqgk->pqg", weights @ between, weights)
    together = visible.sum(axis=0)[:, None] * visible.sum(axis=0)
    together = together - visible.T.astype(int) @ visible
    part = np.arange(len(together))
    same = spread[part, part]
    sums = [
        np.sum(moved * both, axis=0),
        same / 2,
        spread.sum(axis=1) - same,
        cells.sum(axis=0),
        np.sum(cells > 0, axis=0),
    ]
    same_pairs = together[part, part]
    return np.stack(sums), same_pairs // 2, together.sum(axis=1) - same_pairs


def best_groups(table):
    """For every part the group with the lowest ratio, `(P,)`."""
    return _ratio(table["spread"], table["other"]).argmin(axis=1)


def summary(table, groups):
    """The metrics: means over groups, and of the given group of each part."""
    best = {
        name: np.take_along_axis(values, groups[:, None], axis=1)
        for name, values in table.items()
    }
    result = {}
    for ending, values in (("", table), ("_best_group", best)):
        mean = {name: each.mean(axis=0) for name, each in values.items()}
        ratio = _ratio(mean["spread"], mean["other"])
        metrics = {
            "distance": mean["distance"],
            "spread": mean["spread"],
            "ratio": ratio,
            "cells": 100 * mean["cells"],
            "shown": 100 * mean["shown"],
        }
        result |= {
            f"part_{name}{ending}": float(each.mean()) for name, each in metrics.items()
        }
    return result


def _unit(metric):
    return UNITS.get(metric.removesuffix("_best_group"), PERCENT)


def _ratio(spread, other):
    """1, chance, where everything is in one place."""
    return np.divide(spread, other, out=np.ones_like(spread), where=other > 0)
