"""Attention of class prompts on the parts that set their classes apart.

A class of the generated set differs from some others in a single part. Metrics, in per
cent, means over the held-out images in which such a part is visible:

- `on_parts`: share of a map in the boxes of these parts,
- `on_other_parts`: share in the boxes of all others, where they do not overlap these,
- `test_accuracy`, of a row's own label.

Maps are of the image's own class, a cell spread evenly over its pixels. Rows:

- a row's own label: the prompt's attention, mean over the heads,
- `..._best_head`: its head with the most on these parts, chosen on training images,
- `..._other_class`: the attention of the prompt of a class that differs the most,
- `..._other_image`: maps of other images, which know only the average place of parts,
- `..._random_prompts`: the same network before its first step,
- `..._grad_cam`: Grad-CAM of the same network,
- `uniform`: attention that is everywhere the same, the area of the boxes.
"""

import warnings

import numpy as np

from keras_attn.explain import grad_cam
from keras_attn.pipelines.generated.shapes import class_table
from keras_attn.pipelines.images.boxes import filled
from keras_attn.training.data.load import image_spec
from keras_attn.training.experiments.measures import held_out
from keras_attn.training.experiments.protocol import RowValue
from keras_attn.training.experiments.studies._annotations import annotated
from keras_attn.training.experiments.studies.attention_on_object import share
from keras_attn.training.fit.train import initial_model
from keras_attn.training.runs.outputs import outputs_of

OUTPUT = "prompt_attention"
METRICS = ("on_parts", "on_other_parts")
# Training images that heads are chosen on.
CHOOSING = 500
BATCH = 50


def study(runs, sources):
    """The shares of every run's model of the last epoch; see `Study`."""
    for label, run in runs.items():
        _, source, images, indices = annotated(run, sources[label], ["part_boxes"])
        model = run.load_model("last")
        test = indices[held_out(indices)]
        scores = outputs_of(model, images[test], names=["logits"])["logits"]
        right = scores.argmax(axis=1) == source.labels[test]
        yield RowValue(label, "test_accuracy", 100 * float(right.mean()))
        if OUTPUT not in model.output:
            continue
        regions = parts_apart(source.annotations["part_boxes"], source.labels, images)
        initial = initial_model(run.recipe, image_spec(run.recipe, source))
        chosen = [
            each[np.flatnonzero(regions[0][each].any(axis=(1, 2)))]
            for each in (indices["train"][:CHOOSING], test)
        ]
        maps = maps_of(model, initial, images, source.labels, *chosen, regions[0])
        for name, values in maps.items():
            row = name if name == "uniform" else f"{label}{name}"
            for metric, region in zip(METRICS, regions, strict=True):
                yield RowValue(row, metric, 100 * share(values, region[chosen[1]]))


def parts_apart(boxes, labels, images):
    """Regions of the parts that set classes apart, and of all others.

    Args:
        boxes: `(images, parts, 4)`, -1 where a part is not visible.
        labels: `(images,)`.
        images: `(images, height, width, 3)`.

    Returns:
        Two arrays `(images, height, width)` of booleans.
    """
    table = class_table(int(labels.max()) + 1)
    differ = table[:, None] != table
    only = differ.sum(axis=-1, keepdims=True) == 1
    apart = (differ & only).any(axis=1)[labels]
    size = images.shape[1:3]
    inside = np.stack([filled(each, *size) for each in boxes.swapaxes(0, 1)], 1)
    ours, others = (
        (inside & chosen[:, :, None, None]).any(axis=1) for chosen in (apart, ~apart)
    )
    return ours, others & ~ours


def maps_of(model, initial, images, labels, train, test, regions):
    """Dict from the ending of a row's name to its maps `(images, rows, columns)`."""
    table = class_table(int(labels.max()) + 1)
    farthest = (table[:, None] != table).sum(axis=-1).argmax(axis=1)
    own = attention(model, images[test], labels[test])
    heads = np.moveaxis(attention(model, images[train], labels[train]), 1, 0)
    best = np.argmax([share(each, regions[train]) for each in heads])
    mean = own.mean(axis=1)
    other = attention(model, images[test], farthest[labels[test]])
    random = attention(initial, images[test], labels[test])
    return {
        "": mean,
        "_best_head": own[:, best],
        "_other_class": other.mean(axis=1),
        "_other_image": np.roll(mean, 1, axis=0),
        "_random_prompts": random.mean(axis=1),
        "_grad_cam": _grad_cam(model, images[test], labels[test]),
        "uniform": np.ones_like(mean),
    }


def attention(model, images, labels):
    """Attention of a class's prompt in every image, `(images, heads, rows, columns)`.

    Args:
        model: Model of `keras_attn.models.prompt_cam` with its preprocessing.
        images: `(images, height, width, 3)`, 8-bit.
        labels: `(images,)`.
    """
    found = outputs_of(model, images, BATCH, [OUTPUT])[OUTPUT]
    return found[np.arange(len(labels)), labels]


def _grad_cam(model, images, labels):
    parts = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* maps are constant")
        for start in range(0, len(images), BATCH):
            part = slice(start, start + BATCH)
            found = grad_cam(model, np.asarray(images[part]), labels=labels[part])
            parts.append(np.asarray(found))
    maps = np.concatenate(parts)
    # One that points at nothing is as good as a uniform one.
    return np.where(maps.any(axis=(1, 2), keepdims=True), maps, 1.0)
