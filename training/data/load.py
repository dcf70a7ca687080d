"""A recipe's images and labels."""

from keras_attn.pipelines.batches import build
from keras_attn.pipelines.images.streaming import load_images
from keras_attn.pipelines.sources import load_source
from keras_attn.pipelines.sources.splits import split_indices
from keras_attn.preprocessing import ImageSpec


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


def load_source_of(recipe, data=None, on_corrupt="error"):
    """The `Source` of a recipe's data set; arguments as in `load_data`."""
    options = {}
    if recipe.dataset == "generated":
        options = {
            "examples": recipe.examples,
            "image_size": recipe.image_size,
            "difficulty": recipe.difficulty,
        }
    return load_source(recipe.dataset, path=data, on_corrupt=on_corrupt, **options)


def load_data(recipe, data=None, source=None, on_corrupt="error"):
    """The recipe's data, split.

    Args:
        recipe: `Recipe`.
        data: Path of the data, where the data set is not made or fetched by name.
        source: A loaded `Source` instead.
        on_corrupt: `"error"` or `"skip"`.

    Returns:
        `(spec, splits)`: the `ImageSpec`, and a dict from `train`, `validation` and
        `test` to `(images, labels)`: images in memory, or `StreamedImages` where they
        would not fit.
    """
    spec, source, images, indices = load_source_split(recipe, data, source, on_corrupt)
    return spec, {
        name: (images[chosen], source.labels[chosen])
        for name, chosen in indices.items()
    }


def load_source_split(recipe, data=None, source=None, on_corrupt="error"):
    """What `load_data` gives the images of, with their names.

    Returns:
        `(spec, source, images, indices)`: the `ImageSpec`, the `Source` without what
        was left out, its images, and a dict from `train`, `validation` and `test` to
        the indices of theirs.
    """
    if source is None:
        source = load_source_of(recipe, data, on_corrupt)
    spec = image_spec(recipe, source)
    source, images = load_images(source, spec, recipe.in_memory)
    indices = split_indices(source, recipe.split, recipe.split_seed)
    build.check_arrays(images, source.labels, len(source.class_names))
    return spec, source, images, indices
