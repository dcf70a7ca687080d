"""The images of a run's splits with what is known of them."""

from keras_attn.pipelines.images.streaming import load_images
from keras_attn.pipelines.sources.splits import split_indices
from keras_attn.training.data.load import image_spec


def annotated(run, source, names):
    """The run's images, and their annotations in pixels of the network's image.

    Args:
        run: `Run`.
        source: The `Source` of its data set.
        names: Annotations that are needed.

    Returns:
        `(images, source, indices)`: all images, in memory or streamed; the source that
        has their labels and annotations; and a dict from the splits' names to indices.

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
    return (
        images,
        source,
        split_indices(source, run.recipe.split, run.recipe.split_seed),
    )
