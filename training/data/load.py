"""A recipe's images and labels."""

import os
import sys
from typing import NamedTuple

import numpy as np

from keras_attn.pipelines.batches import build
from keras_attn.pipelines.images.duplicates import repeated_files
from keras_attn.pipelines.images.source import Source
from keras_attn.pipelines.images.streaming import StreamedImages, load_images
from keras_attn.pipelines.sources import load_source
from keras_attn.pipelines.sources.catalogue import KNOWN
from keras_attn.pipelines.sources.splits import at_most, missing_classes, split_indices
from keras_attn.preprocessing import ImageSpec


class Examples(NamedTuple):
    """Images and their labels.

    Args:
        images: `(examples, height, width, 3)`, 8-bit, in memory, or `StreamedImages`
            where they would not fit.
        labels: `(examples,)` integers.
    """

    images: np.ndarray | StreamedImages
    labels: np.ndarray


class SplitSource(NamedTuple):
    """A source at a recipe's size, and its split.

    Args:
        spec: `ImageSpec` of the images.
        source: The source without the images left out.
        images: All its images, see `Examples`.
        indices: Dict from `train`, `validation` and `test` to the indices of theirs.
    """

    spec: ImageSpec
    source: Source
    images: np.ndarray | StreamedImages
    indices: dict[str, np.ndarray]

    @property
    def splits(self):
        """Dict from `train`, `validation` and `test` to `Examples`."""
        return {
            name: Examples(self.images[chosen], self.source.labels[chosen])
            for name, chosen in self.indices.items()
        }


def image_spec(recipe, source):
    """The spec of the images that a recipe's network sees."""
    return ImageSpec(
        height=recipe.image_size,
        width=recipe.image_size,
        crop_fraction=recipe.crop_fraction,
        mean=source.mean,
        std=source.std,
        class_names=source.class_names,
        licence=source.licence,
        source=source.url,
    )


def load_source_of(recipe, data=None, on_corrupt="error", download=True):
    """The `Source` of a recipe's data set, see `load_data`.

    `download` decides whether TensorFlow Datasets may get a data set that is not there.
    """
    options = {"depth": recipe.depth} if recipe.dataset == "folder" and data else {}
    if recipe.dataset in KNOWN and KNOWN[recipe.dataset].synthetic:
        options = {
            "examples": recipe.examples,
            "image_size": recipe.image_size,
            "difficulty": recipe.difficulty,
        }
    elif data is None and recipe.dataset != "folder" and not download:
        options["download"] = False
    return load_source(recipe.dataset, path=data, on_corrupt=on_corrupt, **options)


def load_data(recipe, data=None, source=None, on_corrupt="error"):
    """The recipe's data, split: its `ImageSpec`, and a dict from names to `Examples`.

    The names are `train`, `validation` and `test`. `data` is the path of a data set
    that is not made or fetched by name, `source` a loaded `Source` instead;
    `on_corrupt` is `"error"` or `"skip"`.
    """
    found = load_source_split(recipe, data, source, on_corrupt)
    return found.spec, found.splits


def load_source_split(
    recipe, data=None, source=None, on_corrupt="error", download=True
):
    """The `SplitSource` of a recipe's data; see `load_data` and `load_source_of`."""
    if source is None:
        source = load_source_of(recipe, data, on_corrupt, download)
    spec = image_spec(recipe, source)
    given = source
    source, images = load_images(source, spec, recipe.in_memory)
    indices = split_indices(source, recipe.split, recipe.split_seed)
    indices["train"] = at_most(
        source, indices["train"], recipe.train_per_class, recipe.split_seed
    )
    build.check_arrays(images, source.labels, len(source.class_names))
    for line in missing_classes(source, indices):
        print(line, file=sys.stderr)
    if given.read and (source.images is not None or _has_paths(given)):
        _warn_of_repeated(given, source, indices)
    return SplitSource(spec, source, images, indices)


def _has_paths(source):
    """True for a folder, whose files have a size without being read."""
    first = source.files[0] if source.files else None
    return isinstance(first, str) and os.path.isfile(first)


def _warn_of_repeated(given, source, indices):
    """Prints a line on files of a source that two parts of its split have."""
    parts = {
        source.files[index]: part
        for part, chosen in indices.items()
        for index in chosen
    }
    groups = repeated_files(given, parts)
    if groups:
        first = ", ".join(map(given.where, groups[0]))
        print(
            f"Images in two parts of the split, which flatters the accuracy: "
            f"{len(groups)} ({first}{', ...' * (len(groups) > 1)}). See keras-attn "
            "data --check",
            file=sys.stderr,
        )
