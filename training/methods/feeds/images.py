"""Batches of whole images."""

from keras_attn.pipelines.batches import build
from keras_attn.training.runs import devices, hosts

# Images in a batch of a validation, for every device.
VALIDATION_BATCH = 128


class ImageFeed:
    """Whole images, augmented.

    Args:
        recipe: `Recipe`.
        splits: Dict from `train` and `validation` to `(images, labels)`.
        spec: `ImageSpec` whose mean and standard deviation the network normalises with,
            for noise; ImageNet's by default.
    """

    def __init__(self, recipe, splits, spec=None):
        self.recipe = recipe
        self.splits = splits
        self.spec = spec
        self.part = hosts.group().part

    @property
    def steps(self):
        """Batches per epoch."""
        return build.steps_per_epoch(
            len(self.splits["train"][1]), self.recipe.batch_size
        )

    def training(self, start):
        """`(images, labels)` of the epochs from `start` on."""
        recipe = self.recipe
        return build.training_batches(
            *self.splits["train"],
            recipe.batch_size,
            recipe.seed,
            recipe.epochs,
            start,
            recipe.options.augmentation,
            self.spec,
            self.part,
        )

    def validation(self):
        """`(images, labels)` in order, or `None` if there are no such images."""
        images, labels = self.splits["validation"]
        if not len(labels):
            return None
        # Large batches, for speed: loss and accuracy do not depend on their size.
        count = devices.device_count()
        largest = max(self.recipe.batch_size, VALIDATION_BATCH * count)
        size = build.evaluation_batch_size(len(labels), largest, count)
        own = build.own_examples(len(labels), size, self.part)
        return build.evaluation_batches(images[own], labels[own], size)

    def save(self, run):
        """Puts into the run's folder what its model needs beside its weights."""
