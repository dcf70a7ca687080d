"""A recipe for photographs of one's own."""

import dataclasses
import pathlib
import re

import numpy as np

from keras_attn.pipelines.images.decoding import CorruptImageError, image_size
from keras_attn.pipelines.sources.load import load_source
from keras_attn.pipelines.sources.splits import at_most, split_indices
from keras_attn.training.methods.finetune import trained_spec
from keras_attn.training.recipes.registry import DEFAULT, get_recipe
from keras_attn.training.recipes.schema import Recipe

# Images whose size is read.
SIZED = 50


def own_data_recipe(data, on_corrupt="error", depth=0):
    """A recipe by the number and the size of the images of a folder or archive.

    A folder's own parts are its split, else its images are pooled. Small images are
    trained at 32 pixels, others at 64, in 10 to 30 epochs: the fewer the images, the
    more. The recipe is named after the folder.

    Args:
        data: Path of the images.
        on_corrupt: `"error"`, or `"skip"` to leave out what cannot be decoded.
        depth: See `keras_attn.pipelines.sources.load.load_source`.
    """
    source = load_source("folder", data, on_corrupt, depth=depth)
    split = own_split(source)
    trained = len(split_indices(source, split)["train"])
    return dataclasses.replace(
        get_recipe(DEFAULT),
        name=own_name(data),
        dataset="folder",
        depth=depth,
        split=split,
        image_size=32 if _usual_side(source) < 64 else 64,
        batch_size=max(1, min(32, trained // 2)),
        epochs=int(np.clip(6000 // len(source), 10, 30)),
    )


def own_split(source):
    """Name of the split of a folder: its own parts, or all images pooled."""
    return "official" if source.official else "pooled_65_15_20"


def finetune_recipe(
    data, model, on_corrupt="error", depth=0, method="finetune", **options
):
    """A recipe that fine-tunes a trained classifier on a folder or archive.

    Args:
        data, on_corrupt, depth: See `own_data_recipe`.
        model: The classifier, see
            `keras_attn.training.recipes.options.finetune.FinetuneOptions`.
        method: `"finetune"`, or `"prompt_cam"` to train class prompts alone.
        **options: Further fields of the recipe.
    """
    source = load_source("folder", data, on_corrupt, depth=depth)
    split = own_split(source)
    recipe = Recipe("finetune", method, model=str(model), **options)
    train = split_indices(source, split)["train"]
    trained = len(at_most(source, train, recipe.train_per_class))
    size = trained_spec(recipe.options)
    if size.height != size.width:
        raise ValueError(
            "Expected a model of square images. "
            f"Received: {model} for {size.height} x {size.width} pixels"
        )
    added = [own_name(data), own_name(model), recipe.row]
    return dataclasses.replace(
        recipe,
        name=re.sub(r"[^\w-]+", "_", "_".join(added)),
        dataset="folder",
        depth=depth,
        split=split,
        image_size=size.height,
        # Networks for photographs are trained and judged on such crops.
        crop_fraction=size.crop_fraction if size.height < 160 else 0.875,
        batch_size=max(1, min(32, trained // 2)),
        epochs=11,
        learning_rate=recipe.options.usual_rate,
        weight_decay=1e-2,
    )


def own_name(data):
    """The name of a folder, archive, pattern or URL as that of a run."""
    path = pathlib.Path(str(data).partition("://")[2] or data).resolve()
    name = path.name if path.is_dir() else path.name.split(".")[0]
    if "{" in name:
        name = name.split("{")[0].rstrip("-_")
    return re.sub(r"[^\w-]+", "_", name).strip("_") or "photographs"


def _usual_side(source):
    """Median of the shorter sides of some images."""
    chosen = np.unique(np.linspace(0, len(source) - 1, min(SIZED, len(source))))
    sides = []
    for index in chosen.astype(int):
        try:
            sides.append(min(image_size(source.read(index), source.where(index))))
        except (OSError, CorruptImageError):
            continue
    return np.median(sides) if sides else 0
