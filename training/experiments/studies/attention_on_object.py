"""Share of the class token's attention on the object, on data with known objects.

The attention from the class token to the patches in the last block, mean over the heads
and brought to a sum of 1: the part that falls on the object, mean over the held-out
images that show one. Metrics, in per cent: `attention_on_object`, by the
object's mask, and `attention_in_box`, by its box; a cell's attention is spread evenly
over its pixels. Rows:

- a row's own label: the trained teacher,
- `best_head`: its head with the most attention on objects, chosen on these images,
- `chosen_heads`: the mean of the heads that `keras_attn.explain.object_heads` chooses
  on a few of these images, without their masks,
- `other_image`, `best_head_other_image`, `chosen_heads_other_image`: these maps of
  other images, which know only the average place of objects,
- `random_initialization`: the same network before its first step,
- `uniform`: attention that is everywhere the same, the area of objects and of boxes.

`corloc` is the share of images in which the box of an object is found, with an overlap
of at least 0.5, by `token_cut` and `lost` on the last tokens, by TokenCut on the chosen
heads, `chosen_heads`, by `token_cut_other_image`, and by the whole image, `uniform`.
"""

import numpy as np
from keras import ops

from keras_attn.explain import (
    boxes_of_masks,
    head_features,
    lost,
    object_heads,
    patch_features,
    token_cut,
)
from keras_attn.metrics import corloc
from keras_attn.models.vit import attention_map_model
from keras_attn.pipelines.images.boxes import filled
from keras_attn.training.data.load import image_spec
from keras_attn.training.experiments.measures import held_out
from keras_attn.training.experiments.protocol import RowValue
from keras_attn.training.experiments.studies._annotations import annotated
from keras_attn.training.fit.train import initial_model
from keras_attn.training.runs.map_model import sample_of

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
        List of `RowValue`s: for every row the metrics `METRICS`, and `corloc` of the
        methods that give boxes.
    """
    masks = np.asarray(masks, bool)
    shown = masks.any(axis=(1, 2))
    images, masks, boxes = np.asarray(images)[shown], masks[shown], boxes[shown]
    regions = masks, filled(boxes, *masks.shape[1:])
    of_heads = head_maps(trained, images)
    mean = of_heads.mean(axis=-1)
    heads = np.moveaxis(of_heads, -1, 0)
    best = heads[np.argmax([share(values, masks) for values in heads])]
    chosen = object_heads(trained, images[sample_of(len(images))])
    of_chosen = head_maps(trained, images, chosen).mean(axis=-1)
    maps = {
        label: mean,
        "best_head": best,
        "chosen_heads": of_chosen,
        "other_image": np.roll(mean, 1, axis=0),
        "best_head_other_image": np.roll(best, 1, axis=0),
        "chosen_heads_other_image": np.roll(of_chosen, 1, axis=0),
        "random_initialization": head_maps(initial, images).mean(axis=-1),
        "uniform": np.ones_like(mean),
    }
    shares = [
        RowValue(row, metric, 100 * share(values, region))
        for row, values in maps.items()
        for metric, region in zip(METRICS, regions, strict=True)
    ]
    found = found_boxes(trained, images, chosen).items()
    return shares + [
        RowValue(row, "corloc", 100 * corloc(each, boxes)) for row, each in found
    ]


def found_boxes(network, images, heads):
    """Dict from the rows with boxes to those of all images, `(images, 4)`."""
    size = images.shape[1:3]
    features = _in_batches(
        lambda batch: patch_features(network, batch, output="tokens"), images
    )
    of_heads = _in_batches(lambda batch: head_features(network, batch, heads), images)
    cut = boxes_of_masks(token_cut(features), size)
    return {
        "token_cut": cut,
        "lost": boxes_of_masks(lost(features), size),
        "chosen_heads": boxes_of_masks(token_cut(of_heads), size),
        "token_cut_other_image": np.roll(cut, 1, axis=0),
        "uniform": np.tile([0, 0, *size], (len(images), 1)),
    }


def head_maps(network, images, heads=None):
    """Attention of the class token, `(images, rows, columns, heads)`.

    Args:
        network: Model of `vit` with its preprocessing.
        images: `(images, height, width, 3)`, 8-bit.
        heads: See `attention_map_model`.
    """
    model = attention_map_model(network, heads=heads)
    return _in_batches(lambda batch: ops.convert_to_numpy(model(batch)), images)


def _in_batches(function, images):
    starts = range(0, len(images), BATCH)
    return np.concatenate(
        [function(np.asarray(images[start : start + BATCH])) for start in starts]
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
