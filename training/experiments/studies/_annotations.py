"""The images of a run's splits with their annotations."""

from typing import Any, NamedTuple

import numpy as np

from keras_attn.pipelines.images.streaming import load_images
from keras_attn.pipelines.sources.splits import split_indices
from keras_attn.training.data.load import image_spec


class Annotated(NamedTuple):
    """Images of a run.

    Args:
        images: All images, in memory or streamed.
        source: `Source` with their labels and annotations.
        indices: Dict from the names of the splits to indices.
    """

    images: Any
    source: Any
    indices: dict[str, np.ndarray]


def annotated(run, source, names):
    """The run's images, and their annotations in pixels of the network's image.

    Args:
        run: `Run`.
        source: The `Source` of its data set.
        names: Annotations that are needed.

    Returns:
        `Annotated`.

    Raises:
        ValueError: If the source has no such annotations.
    """
    for name in names:
        if name not in source.annotations:
            raise ValueError(
                f"Expected a data set with {name!r} known, such as `generated`. "
                f"Received: {source.name}, without {name!r}"
            )
    spec = image_spec(run.recipe, source)
    source, images = load_images(source, spec, run.recipe.in_memory)
    indices = split_indices(source, run.recipe.split, run.recipe.split_seed)
    return Annotated(images, source, indices)
