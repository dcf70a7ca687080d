"""Share of the class token's attention on the object, on data with known objects.

The attention from the class token to the patches in the last block, mean over the heads
and brought to a sum of 1: the part that falls on the object, mean over the held-out
images that show one. Metrics, in per cent: `attention_on_object`, by the
object's mask, and `attention_in_box`, by its box; a cell's attention is spread evenly
over its pixels. Rows:

- a row's own label: the trained teacher,
- `best_head`: its head with the most attention on objects, chosen on these images,
- `other_image`, `best_head_other_image`: these maps of other images, which know only
  the average place of objects,
- `random_initialization`: the same network before its first step,
- `uniform`: attention that is everywhere the same, the area of objects and of boxes.
"""

import numpy as np
from keras import ops

from keras_attn.models.vit import attention_map_model
from keras_attn.pipelines.images.boxes import filled
from keras_attn.training.data.load import image_spec
from keras_attn.training.experiments.measures import held_out
from keras_attn.training.experiments.protocol import RowValue
from keras_attn.training.experiments.studies._annotations import annotated
from keras_attn.training.fit.train import initial_model

METRICS = ("attention_on_object", "attention_in_box")
BATCH = 64


def study(runs, sources):
    """The shares of every run's model of the last epoch; see `Study`."""
    for label, run in runs.items():
        _, source, images, indices = annotated(run, sources[label], ["mask", "box"])
        chosen = indices[held_out(indices)]
        masks, boxes = (source.annotations[name][chosen] for name in ("mask", "box"))
        initial = initial_model(run.recipe, image_spec(run.recipe, source))
        trained = run.load_model("last")
        yield from compare(label, trained, initial, images[chosen], masks, boxes)


def compare(label, trained, initial, images, masks, boxes):
    """The rows above, for a network after its training and before its first step.

    Args:
        label: Name of the trained row.
        trained, initial: Models of `vit` with their preprocessing.
        images: `(images, height, width, 3)`, 8-bit.
        masks: `(images, height, width)` booleans; images that show nothing are left
            out.
        boxes: `(images, 4)`, `(y0, x0, y1, x1)` in pixels.

    Returns:
        List of `RowValue`s: for every row the metrics `METRICS`.
    """
    masks = np.asarray(masks, bool)
    shown = masks.any(axis=(1, 2))
    images, masks, boxes = np.asarray(images)[shown], masks[shown], boxes[shown]
    regions = masks, filled(boxes, *masks.shape[1:])
    of_heads = head_maps(trained, images)
    mean = of_heads.mean(axis=-1)
    heads = np.moveaxis(of_heads, -1, 0)
    best = heads[np.argmax([share(values, masks) for values in heads])]
    maps = {
        label: mean,
        "best_head": best,
        "other_image": np.roll(mean, 1, axis=0),
        "best_head_other_image": np.roll(best, 1, axis=0),
        "random_initialization": head_maps(initial, images).mean(axis=-1),
        "uniform": np.ones_like(mean),
    }
    return [
        RowValue(row, metric, 100 * share(values, region))
        for row, values in maps.items()
        for metric, region in zip(METRICS, regions, strict=True)
    ]


def head_maps(network, images):
    """Attention of the class token, `(images, rows, columns, heads)`.

    Args:
        network: Model of `vit` with its preprocessing.
        images: `(images, height, width, 3)`, 8-bit.
    """
    model = attention_map_model(network)
    return np.concatenate(
        [
            ops.convert_to_numpy(model(np.asarray(images[start : start + BATCH])))
            for start in range(0, len(images), BATCH)
        ]
    )


def share(maps, regions):
    """Mean share of the maps that lies in regions.

    Args:
        maps: `(images, rows, columns)`, not negative, not all 0.
        regions: `(images, height, width)` booleans; cells tile the images.
    """
    rows, columns = maps.shape[1:]
    count, height, width = regions.shape
    cells = regions.reshape(
        count, rows, height // rows, columns, width // columns
    ).mean(axis=(2, 4))
    maps = maps / maps.sum(axis=(1, 2), keepdims=True)
    return float((maps * cells).sum(axis=(1, 2)).mean())
