"""Maps of the known places of objects, in place of attention maps.

With a `map_mode` of `MODES` a network gets the mask of the image's object, or the
object's box, filled, instead of a transformer's map. That separates bad maps from masks
that do not help. No image but those of the data set has such a map.
"""

import functools

import numpy as np

from keras_attn.pipelines.attention_maps.digests import image_keys
from keras_attn.pipelines.images.boxes import filled
from keras_attn.pipelines.sources import load_source
from keras_attn.pipelines.sources.catalogue import KNOWN

# Value of the option `map_mode` -> annotation of the data set.
MODES = {"true_mask": "mask", "true_box": "box"}
# Data sets that can be made again with all their annotations.
DATASETS = tuple(
    name for name, known in KNOWN.items() if known.synthetic and known.has_objects
)


def check_true_maps(recipe):
    """Raises ValueError if nothing is known of where the recipe's objects are."""
    if recipe.dataset not in DATASETS:
        mode = recipe.options.map_mode
        raise ValueError(
            f"Expected a data set with known objects for map_mode={mode}: "
            f"{', '.join(DATASETS)}. Received: dataset={recipe.dataset!r}"
        )


def true_maps(recipe, images):
    """The maps of images of the recipe's data set, in any order.

    Args:
        recipe: `Recipe` with a `map_mode` of `MODES`.
        images: `(examples, height, width, 3)`, 8-bit, some of the data set's.

    Returns:
        `(examples, height, width, 1)`, uint8: 255 on the object and 0 elsewhere.

    Raises:
        ValueError: If nothing is known of the data set's objects, or an image is not
            one of the data set's at the recipe's size.
    """
    check_true_maps(recipe)
    source, places = _known(
        recipe.dataset, recipe.examples, recipe.image_size, recipe.difficulty
    )
    found = [places.get(key.tobytes()) for key in image_keys(images)]
    if None in found:
        raise ValueError(
            f"Expected images of the data set {recipe.dataset} of recipe "
            f"{recipe.name!r}, whose objects are known. Received: others, the first is "
            f"image {found.index(None)}"
        )
    mode = recipe.options.map_mode
    values = source.annotations[MODES[mode]][found]
    if mode == "true_box":
        values = filled(values, *images.shape[1:3])
    return np.where(values, 255, 0).astype("uint8")[..., None]


@functools.lru_cache(maxsize=1)
def _known(dataset, examples, image_size, difficulty):
    """The source, and the place of every image by its key."""
    source = load_source(
        dataset, examples=examples, image_size=image_size, difficulty=difficulty
    )
    keys = image_keys(source.images)
    return source, {key.tobytes(): place for place, key in enumerate(keys)}
