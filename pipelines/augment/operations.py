"""Stateless augmentation: a batch is a function of its seed and nothing else.

Why not Keras's own random layers: see docs/augmentation.md.
"""

import dataclasses

import tensorflow as tf

from keras_attn.pipelines.augment import crops
from keras_attn.pipelines.augment.colour import Colour
from keras_attn.pipelines.augment.composition import parse
from keras_attn.pipelines.augment.erasing import RandomErasing
from keras_attn.pipelines.augment.geometry import affine
from keras_attn.pipelines.augment.grid_mask import GridMask
from keras_attn.pipelines.augment.operation import IMAGENET, WHOLE, Operation


@dataclasses.dataclass(frozen=True)
class Translate(Operation):
    """Zero-pads every side and crops back at a place of each image's own.

    Args:
        padding: Pixels added on every side.
    """

    padding: int = 4

    def draw(self, seed, count):
        """First row and column shown, `(count, 2)` int32 in `[-padding, padding]`."""
        padding = self.padding
        offsets = tf.random.stateless_uniform(
            (2, count), seed, -padding, padding + 1, tf.int32
        )
        return tf.transpose(offsets)

    def apply(self, images, drawn, normalization):
        edges = [self.padding, self.padding]
        padded = tf.pad(images, [[0, 0], edges, edges, [0, 0]])
        moved = crops.windows(padded, self.padding + drawn, tf.shape(images)[1:3])
        return tf.ensure_shape(moved, images.shape)

    def matrix(self, drawn, before, after):
        linear = tf.eye(2, batch_shape=(tf.shape(drawn)[0],))
        return affine(linear, tf.cast(drawn, tf.float32))


@dataclasses.dataclass(frozen=True)
class Flip(Operation):
    """Mirrors some of the images.

    Args:
        probability: Share of the images that are mirrored.
    """

    probability: float = 0.5

    def draw(self, seed, count):
        """Booleans `(count,)`: which images are mirrored."""
        return tf.random.stateless_uniform((count,), seed) < self.probability

    def apply(self, images, drawn, normalization):
        mirrored = drawn[:, None, None, None]
        return tf.where(mirrored, tf.reverse(images, axis=[2]), images)

    def matrix(self, drawn, before, after):
        columns, offsets = tf.where(drawn, -1.0, 1.0), tf.where(drawn, before[1], 0)
        linear = tf.linalg.diag(tf.stack([tf.ones_like(columns), columns], axis=-1))
        offsets = tf.cast(offsets, tf.float32)
        return affine(linear, tf.stack([tf.zeros_like(offsets), offsets], axis=-1))


# The class of every operation of `keras_attn.pipelines.augment.composition`.
KINDS = {
    "translate": Translate,
    "flip": Flip,
    "resize": crops.Resize,
    "random_crop": crops.RandomCrop,
    "resized_crop": crops.RandomResizedCrop,
    "rotate_crop": crops.RandomAffine,
    "erase": RandomErasing,
    "colour": Colour,
    "grid_mask": GridMask,
}


class Augmentation:
    """Operations applied to batches one after the other.

    Args:
        augmentation: Name or composition, see
            `keras_attn.pipelines.augment.composition`.

    Example:

    >>> augmentation = Augmentation("resize(72)|random_crop(64)|flip|erase(0.25)")
    >>> images = augmentation(images, seed)
    >>> transforms = augmentation.transforms(seed, len(images), (64, 64))
    """

    def __init__(self, augmentation):
        steps = parse(augmentation)
        self.operations = tuple(KINDS[name](*values) for name, values in steps)

    def __call__(self, images, seed, normalization=IMAGENET, first=0, part=WHOLE):
        """Augments a batch.

        Args:
            images: `(batch, height, width, channels)`, raw pixels in 0..255.
            seed: Integer tensor of shape `(2,)`; the same seed gives the same batch.
            normalization: `Normalization`, or `ImageSpec`, of the network.
            first: Number of the first operation that is applied.
            part: `Part` of the batch that the images are.
        """
        for number, operation in enumerate(self.operations):
            if number >= first:
                own = operation_seed(seed, number)
                images = operation(images, own, normalization, part)
        return images

    @property
    def file_operation(self):
        """The first operation, if it takes an image of any size, or `None`.

        Files are cropped before they are resized, so that the crop has all their
        detail. Its seed is `operation_seed(seed, 0)`.
        """
        first = self.operations[:1]
        return first[0] if first and first[0].of_image is not None else None

    @property
    def turns(self):
        return any(operation.turns for operation in self.operations)

    @property
    def exceeds_range(self):
        return any(operation.exceeds_range for operation in self.operations)

    def transforms(self, seed, count, size, image_size=None, part=WHOLE):
        """Transforms of the images of a batch, for what has to stay in place on them.

        `keras_attn.pipelines.augment.geometry` applies them to boxes, points, masks
        and maps.

        Args:
            seed: The same as for the images.
            count: Images in the batch.
            size: Height and width of the images in a batch.
            image_size: Height and width before; `size` by default. Only a
                `file_operation` changes it.
            part: `Part` of the batch that the images are.

        Returns:
            float32 tensor `(count, 3, 3)`; see `keras_attn.pipelines.augment.geometry`.
        """
        total = tf.eye(3, batch_shape=(count,))
        before = image_size if image_size and self.file_operation else size
        for number, operation in enumerate(self.operations):
            drawn = operation.part_drawn(operation_seed(seed, number), count, part)
            size = operation.result_size(size)
            matrix = operation.matrix(drawn, before, size)
            total = total if matrix is None else total @ matrix
            before = size
        return total


def operation_seed(seed, number):
    """The seed of an augmentation's operation, given the one of the batch."""
    return tf.random.fold_in(seed, number)
