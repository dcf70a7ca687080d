"""Batches of localised patches of the images."""

import pathlib

import numpy as np

from keras_attn.layers.localize_patches import SLACK, LocalizePatches
from keras_attn.models.anchornet import BRANCHES, without_auxiliary
from keras_attn.models.localizer import branches_of
from keras_attn.pipelines.batches import patches
from keras_attn.pipelines.files import copy_file
from keras_attn.training.methods.feeds.images import VALIDATION_BATCH
from keras_attn.training.methods.feeds.progress import shown
from keras_attn.training.runs import hosts
from keras_attn.training.runs.run import model_file, read_model

# Name of the localiser in a run's `checkpoints`.
LOCALIZER = "localizer.keras"


class PatchFeed:
    """Patches of the training images, by the paper's slack settings.

    Validated on the best patch of every validation image. The boxes are kept beside
    the localiser, so that all runs that train on its patches share them.

    Args:
        recipe: `Recipe` with a `localizer`.
        splits: See `ImageFeed`.
    """

    def __init__(self, recipe, splits):
        self.recipe = recipe
        self.splits = splits
        self.path = model_file(recipe.options.localizer)
        self.localizer = without_auxiliary(read_model(self.path))
        self.boxes = {
            name: self._boxes(name)
            for name in ("train", "validation")
            if len(splits[name][1])
        }

    def _boxes(self, name):
        images, labels = self.splits[name]
        size, expected = images.shape[1:3], self.localizer.inputs[0].shape[1:3]
        if any(e not in (None, s) for s, e in zip(size, expected, strict=True)):
            raise ValueError(
                f"Expected image_size={expected[0]}, the size that the localizer "
                f"{self.recipe.options.localizer} was trained on. "
                f"Received: image_size={self.recipe.image_size}"
            )
        branches = branches_of(self.localizer)
        folder = pathlib.Path(self.recipe.options.localizer)
        folder = folder if folder.is_dir() else self.path.parent
        found = patches.localized_boxes(
            self.localizer,
            LocalizePatches(branches, **slack_settings(branches)),
            images,
            labels,
            pathlib.Path(folder) / "patches",
            progress=shown("Localised patches"),
        )
        return found["boxes"]

    @property
    def steps(self):
        """Batches per epoch."""
        recipe = self.recipe
        return patches.patch_steps_per_epoch(
            self.boxes["train"], recipe.batch_size, recipe.options.patches_per_image
        )

    def training(self, start):
        """`(patches, labels)` of the epochs from `start` on."""
        recipe = self.recipe
        return patches.patch_batches(
            *self.splits["train"],
            self.boxes["train"],
            recipe.batch_size,
            recipe.seed,
            recipe.epochs,
            start,
            recipe.options.patches_per_image,
            part=hosts.group().part,
        )

    def validation(self):
        """`(patches, labels)` of the best patches, or `None`."""
        if "validation" not in self.boxes:
            return None
        return patches.best_patch_batches(
            *self.splits["validation"],
            self.boxes["validation"],
            max(self.recipe.batch_size, VALIDATION_BATCH),
            hosts.group().part,
        )

    def save(self, run):
        """Copies the localiser into the run's folder, which needs it to predict."""
        target = run.checkpoints / LOCALIZER
        if not target.exists():
            copy_file(self.path, target)


def slack_settings(branches):
    """The paper's slack settings.

    A branch the paper does not have uses the settings of the branch nearest in size.

    Args:
        branches: See `branches_of`.
    """
    sizes = np.array(list(BRANCHES))
    nearest = [
        int(np.abs(sizes - np.max(branch["patch_size"])).argmin())
        for branch in branches
    ]
    counts = tuple(SLACK["max_patches"][index] for index in nearest)
    return {**SLACK, "max_patches": counts}
