"""Batches of several views of each image, without labels."""

from keras_attn.pipelines.batches.multi_crop import MultiCrop, multi_crop_batches
from keras_attn.training.methods.feeds.images import ImageFeed


class ViewFeed(ImageFeed):
    """Views of whole images; nothing to validate on, for views have no labels.

    Args:
        recipe: `Recipe` of the method `dino`.
        splits: See `ImageFeed`.
    """

    def training(self, start):
        """The views of the epochs from `start` on."""
        recipe = self.recipe
        return multi_crop_batches(
            self.splits["train"][0],
            recipe.batch_size,
            recipe.seed,
            recipe.epochs,
            start,
            multi_crop(recipe.options),
            self.part,
        )

    def validation(self):
        return None


def multi_crop(options):
    """`MultiCrop` of a recipe's options.

    Views of other sizes than 224 pixels have a blur in proportion.
    """
    return MultiCrop.for_size(
        options.global_size,
        options.local_size,
        local_views=options.local_views,
        global_area=(options.smallest_global, 1.0),
        local_area=(options.smallest_local, options.greatest_local),
        jitter=options.jitter,
        grey=options.grey,
    )
