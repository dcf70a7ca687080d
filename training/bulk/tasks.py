"""Computations of bulk jobs: from 8-bit images to a row of arrays per image."""

import dataclasses
from collections.abc import Callable

import numpy as np

from keras_attn._checks import one_of, positive_integer
from keras_attn.pipelines.attention_maps.cache import STORAGES
from keras_attn.pipelines.attention_maps.compute import fitted, map_shape, stored
from keras_attn.pipelines.attention_maps.digests import image_keys, model_digest
from keras_attn.pipelines.images.decoding import decode_files, image_size
from keras_attn.preprocessing import ImagePreprocessing, ImageSpec
from keras_attn.training.explain.explainers import explainer_of
from keras_attn.training.explain.localize import boxes_in_file
from keras_attn.training.explain.localizers import localizing
from keras_attn.training.explain.names import AUTO, METHODS, TITLES
from keras_attn.training.explain.saliency import Saliency
from keras_attn.training.retrieval.descriptors import describe, embedder_of
from keras_attn.training.retrieval.index import maker_of
from keras_attn.training.runs.map_model import (
    OBJECTS,
    find_heads,
    load_map_model,
    map_sizes,
    named_heads,
    sample_of,
)
from keras_attn.training.runs.outputs import outputs_of, top_classes, with_outputs
from keras_attn.training.trained import load_trained

# Pixels of a cell of the maps of `explain`, per side.
CELL = 8


@dataclasses.dataclass(frozen=True)
class Task:
    """The computation of a job, with its model loaded.

    Args:
        digest: Text that differs between models that compute something else.
        spec: `ImageSpec` of the images.
        columns: Dict from the names of the results to the dtype and the shape of a row.
        compute: Function of images `(n, height, width, 3)`, 8-bit, `n` a multiple of
            the batch size, and of their encoded files; it returns the dict of arrays.
        notes: Plain data that a reader of the results needs.
    """

    digest: str
    spec: ImageSpec
    columns: dict
    compute: Callable
    notes: dict = dataclasses.field(default_factory=dict)


def task_of(name, model, checkpoint, settings, batch_size):
    """The `Task` of a name, see `TASKS`.

    Args:
        model: `ModelSource`.
        checkpoint: `best` or `last` model of a run.
        settings: Dict of the task's settings, all of them.
        batch_size: Images at a time.
    """
    make = TASKS[one_of("task", name, tuple(TASKS))].make
    if name == "masks":
        return make(model, batch_size, **settings)
    trained = load_trained(model, checkpoint, classifies=name != "embed")
    # Before outputs are added to it.
    digest = model_digest(trained.model)
    columns, compute, notes = make(trained, batch_size, **settings)
    return Task(digest, trained.spec, columns, compute, notes)


# ---- predict -------------------------------------------------------------------------


def _predict(trained, batch_size, top):
    answers = _Answers(trained, batch_size, top)
    return answers.columns, lambda images, files: answers(images), answers.notes


class _Answers:
    """The most probable classes of images."""

    def __init__(self, trained, batch_size, top):
        self.trained, self.batch_size = trained, batch_size
        names = trained.class_names
        self.top = min(positive_integer("top", top), len(names))
        self.names = np.array(names)
        self.model = with_outputs(trained.model, ("logits", "probabilities"))
        self.notes = {"class_names": list(names)}
        self.columns = {
            "labels": ("int32", [self.top]),
            "classes": ("str", [self.top]),
            "probabilities": ("float32", [self.top]),
        }

    def __call__(self, images):
        return self.of_outputs(outputs_of(self.model, images, self.batch_size))

    def of_outputs(self, outputs):
        kept = {name: outputs.get(name) for name in ("logits", "probabilities")}
        probabilities = self.trained.probabilities_of(**kept)
        labels = top_classes(probabilities, self.top)
        rows = np.take_along_axis(probabilities, labels, -1)
        return {
            "labels": labels.astype("int32"),
            "classes": self.names[labels],
            "probabilities": rows.astype("float32"),
        }


# ---- embed ---------------------------------------------------------------------------


def _embed(trained, batch_size):
    embedder = embedder_of(trained)
    columns = {"descriptors": ("float32", [embedder.output.shape[-1]])}
    try:
        notes = {"maker": dataclasses.asdict(maker_of(trained, embedder))}
    except ValueError:
        # Of a network by name; its descriptors are merged into a table.
        notes = {"maker": None}

    def compute(images, files):
        return {"descriptors": describe(embedder, images, batch_size)}

    return columns, compute, notes


# ---- explain -------------------------------------------------------------------------


def _explain(trained, batch_size, top, method, cell):
    one_of("method", method, METHODS)
    positive_integer("cell", cell)
    explainer = explainer_of(trained) if method == AUTO else None
    if explainer is None or not explainer.measurable:
        explainer = Saliency("grad_cam" if method == AUTO else method)
    answers = _Answers(trained, batch_size, top)
    spec = trained.spec
    size = [-(-length // cell) for length in (spec.height, spec.width)]
    columns = {**answers.columns, "maps": ("float16", [answers.top, *size])}
    used = getattr(explainer, "method", "its own maps")
    notes = {**answers.notes, "method": TITLES.get(used, used)}

    def compute(images, files):
        rows = answers(images)
        maps = explainer.maps(trained, images, rows["labels"])
        return {**rows, "maps": cell_means(maps, cell).astype("float16")}

    return columns, compute, notes


def cell_means(maps, cell):
    """Means `(..., rows, columns)` of maps over square cells, smaller at the edges."""
    for axis in (-2, -1):
        starts = np.arange(0, maps.shape[axis], cell)
        counts = np.diff([*starts, maps.shape[axis]])
        sums = np.add.reduceat(np.asarray(maps, "float32"), starts, axis)
        maps = sums / np.expand_dims(counts, -1) if axis == -2 else sums / counts
    return maps


# ---- localize ------------------------------------------------------------------------


def _localize(trained, batch_size, max_patches, iou_threshold, coverage):
    localizer, _ = localizing(
        trained,
        max_patches=max_patches,
        iou_threshold=iou_threshold,
        coverage=coverage,
    )
    answers = _Answers(trained, batch_size, 1)
    names = ("logits", "probabilities", "boxes", "scores", "valid")
    model = with_outputs(localizer.model, names)
    patches = localizer.model.output["boxes"].shape[1]
    columns = {
        **answers.columns,
        "boxes": ("int32", [patches, 4]),
        "boxes_in_file": ("int32", [patches, 4]),
        "scores": ("float32", [patches]),
        "valid": ("bool", [patches]),
    }

    def compute(images, files):
        outputs = outputs_of(model, images, batch_size)
        valid = outputs["valid"].astype(bool)
        boxes = np.where(valid[..., None], outputs["boxes"], 0).astype("int32")
        in_file = [
            boxes_in_file(row, trained.spec, image_size(file, "image"))
            for row, file in zip(boxes, files, strict=True)
        ]
        return {
            **answers.of_outputs(outputs),
            "boxes": boxes,
            "boxes_in_file": np.where(valid[..., None], in_file, 0).astype("int32"),
            "scores": np.where(valid, outputs["scores"], 0).astype("float32"),
            "valid": valid,
        }

    return columns, compute, answers.notes


# ---- masks ---------------------------------------------------------------------------


def _masks(source, batch_size, size, network_size, crop_fraction, storage, heads):
    one_of("storage", storage, STORAGES)
    model = load_map_model(source.path, heads)
    size, network_size = map_sizes(model, size, network_size)
    shape = map_shape(model, network_size)
    columns = {"maps": (storage, list(shape)), "keys": ("uint8", [16])}
    notes = {"map_shape": shape, "image_size": network_size}

    def compute(images, files):
        maps = [
            np.asarray(model.predict_on_batch(np.asarray(fitted(batch, network_size))))
            for batch in np.split(images, len(images) // batch_size)
        ]
        maps = stored(np.concatenate(maps), storage)
        return {"maps": maps, "keys": image_keys(images)}

    spec = ImageSpec(*size, crop_fraction=crop_fraction)
    return Task(model_digest(model), spec, columns, compute, notes)


def _with_heads(source, images, settings):
    """The settings of maps with the heads that see the objects of some images."""
    heads = named_heads(settings["heads"])
    if heads == OBJECTS:
        size, network_size = map_sizes(
            load_map_model(source.path), settings["size"], settings["network_size"]
        )
        fit = ImagePreprocessing(
            ImageSpec(*size, crop_fraction=settings["crop_fraction"])
        ).fit_size
        shown = sample_of(len(images))
        names = [images.name(index) for index in shown]
        decoded = decode_files(
            lambda index: images.read_one(shown[index]), names, size, fit
        )
        heads = find_heads(source.path, heads, decoded.images, network_size)
    return {**settings, "heads": heads}


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of task.

    Args:
        make: Function that makes it.
        settings: Dict of its settings and their defaults.
        settle: Function of a `ModelSource`, the collection of the images and the
            settings, that returns the settings which every worker takes.
    """

    make: Callable
    settings: dict
    settle: Callable = lambda source, images, settings: settings


TASKS = {
    "predict": Kind(_predict, {"top": 5}),
    "explain": Kind(_explain, {"top": 1, "method": AUTO, "cell": CELL}),
    "localize": Kind(
        _localize, {"max_patches": None, "iou_threshold": None, "coverage": None}
    ),
    "embed": Kind(_embed, {}),
    "masks": Kind(
        _masks,
        {
            "size": None,
            "network_size": None,
            "crop_fraction": 1.0,
            "storage": "uint8",
            "heads": None,
        },
        _with_heads,
    ),
}
