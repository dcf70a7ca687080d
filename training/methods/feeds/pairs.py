"""Batches with several images of each class."""

from keras_attn.pipelines.batches import pairs
from keras_attn.training.methods.feeds.images import ImageFeed
from keras_attn.training.runs import devices


class PairFeed(ImageFeed):
    """Whole images, augmented, `images_per_class` of each class of a batch.

    Validated as in `ImageFeed`, on all images in order. On TensorFlow several devices
    each have whole classes of a batch, and compare the images of these only: unlike
    otherwise in a training, their number changes more than rounding.

    Args:
        recipe: `Recipe` with `images_per_class` of at least 2, a divisor of
            `batch_size`, see `keras_attn.pipelines.batches.pairs`.
        splits, spec: See `ImageFeed`.
        class_names: Names of the classes, for messages.

    Raises:
        ValueError: If the batch size is not a multiple of `images_per_class` that the
            devices can share; from `steps` and `training` if the training images do not
            suffice, such as a class with a single one.
    """

    def __init__(self, recipe, splits, class_names=None, spec=None):
        super().__init__(recipe, splits, spec)
        self.class_names = class_names
        each, count = recipe.options.images_per_class, devices.device_count()
        if recipe.batch_size % (each * count):
            share = f", times the {count} devices" if count > 1 else ""
            raise ValueError(
                f"Expected batch_size to be a multiple of images_per_class{share}. "
                f"Received: batch_size={recipe.batch_size}, images_per_class={each}"
            )
        self.images_per_class = each
        self.classes_per_batch = recipe.batch_size // each

    @property
    def steps(self):
        """Batches per epoch."""
        return pairs.balanced_steps_per_epoch(
            self.splits["train"][1],
            self.classes_per_batch,
            self.images_per_class,
            self.class_names,
        )

    def training(self, start):
        """`(images, labels)` of the epochs from `start` on."""
        recipe = self.recipe
        return pairs.balanced_batches(
            *self.splits["train"],
            self.classes_per_batch,
            self.images_per_class,
            recipe.seed,
            recipe.epochs,
            start,
            recipe.options.augmentation,
            self.class_names,
            devices.device_count(),
            self.spec,
            self.part,
        )
