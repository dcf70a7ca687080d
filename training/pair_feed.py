"""What a network that compares images is fed with: several images of each class."""

from pipelines import pairs
from training import strategy
from training.feed import ImageFeed


class PairFeed(ImageFeed):
    """Whole images, augmented, `images_per_class` of each class of a batch.

    Validated as in `ImageFeed`, on all images in order. Several devices each have whole
    classes of a batch, and compare the images of these only: unlike otherwise in a
    training, their number changes more than rounding.

    Args:
        recipe: `Recipe` with `images_per_class` of at least 2, a divisor of
            `batch_size`, see `pipelines.pairs`.
        splits: As in `ImageFeed`.
        class_names: Names of the classes, for messages.

    Raises:
        ValueError: If the batch size is not a multiple of `images_per_class` that the
            devices can share; from `steps` and `training` if the training images do not
            suffice, such as a class with a single one.
    """

    def __init__(self, recipe, splits, class_names=None):
        super().__init__(recipe, splits)
        self.class_names = class_names
        each, devices = recipe.images_per_class, strategy.device_count()
        if recipe.batch_size % (each * devices):
            share = f", times the {devices} devices" if devices > 1 else ""
            raise ValueError(
                f"Expected batch_size to be a multiple of images_per_class{share}. "
                f"Received: batch_size={recipe.batch_size}, images_per_class={each}"
            )
        self.classes_per_batch = recipe.batch_size // each

    @property
    def steps(self):
        """Batches in an epoch."""
        return pairs.balanced_steps_per_epoch(
            self.splits["train"][1],
            self.classes_per_batch,
            self.recipe.images_per_class,
            self.class_names,
        )

    def training(self, start):
        """`(images, labels)` of the epochs from `start` on."""
        recipe = self.recipe
        return pairs.balanced_batches(
            *self.splits["train"],
            self.classes_per_batch,
            recipe.images_per_class,
            recipe.seed,
            recipe.epochs,
            start,
            recipe.augmentation,
            self.class_names,
            strategy.device_count(),
        )
