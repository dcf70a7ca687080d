"""The protocol of an augmentation's operations."""

from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import tensorflow as tf

from keras_attn.preprocessing import IMAGENET_MEAN, IMAGENET_STD


class Normalization(NamedTuple):
    """Mean and standard deviation of every channel, on the scale 0..1.

    Those that the network normalises its images with. An `ImageSpec` has them too.
    """

    mean: tuple = IMAGENET_MEAN
    std: tuple = IMAGENET_STD


IMAGENET = Normalization()


class Part(NamedTuple):
    """The part of every batch that one of several processes makes.

    Random draws are those for the whole batch, cut: the images do not depend on the
    number of processes.

    Args:
        number: Number of the process, from 0.
        count: Number of processes.
    """

    number: int = 0
    count: int = 1

    def size(self, batch_size, unit="batch_size"):
        """Length of the part of a batch.

        Raises:
            ValueError: If the processes cannot share it in equal parts.
        """
        if batch_size % self.count:
            raise ValueError(
                f"Expected {unit} to be a multiple of the {self.count} processes that "
                f"share a batch. Received: {unit}={batch_size}"
            )
        return batch_size // self.count

    def of(self, size):
        """Slice of a whole batch, when the part has this length."""
        return slice(self.number * size, (self.number + 1) * size)

    def drawn(self, draw, count):
        """The results of `draw(number of images)` for `count` images of the part."""
        if self.count == 1:
            return draw(count)
        return tf.nest.map_structure(
            lambda each: each[self.of(count)], draw(count * self.count)
        )

    def uniform(self, shape, seed, *limits):
        """`stateless_uniform` of the part's images, which are the first axis."""
        return self.drawn(
            lambda count: tf.random.stateless_uniform(
                (count, *shape[1:]), seed, *limits
            ),
            shape[0],
        )


WHOLE = Part()


@runtime_checkable
class Operation(Protocol):
    """A step of an augmentation: a function of images and a seed.

    `draw` decides everything random, `apply` and `matrix` follow it: `matrix` moves
    boxes, points and maps as `apply` moves images.

    Attributes:
        turns: Whether a matrix may turn, so that rows and columns cannot be resampled
            one after the other.
        exceeds_range: Whether values outside of 0..255 may result, which images of
            floats keep.
        of_image: Method `(image, drawn, size)` that applies what was drawn for one
            image of any size and gives a result of `size`, or `None`.
    """

    turns: ClassVar[bool] = False
    exceeds_range: ClassVar[bool] = False
    of_image: ClassVar = None

    def draw(self, seed, count):
        """Everything random about `count` images, a tensor or tuple of tensors.

        Images are their first axis. The seed is an integer tensor of shape `(2,)`.
        """

    def apply(self, images, drawn, normalization):
        """Images as drawn, in their own dtype.

        They are `(batch, height, width, channels)`, raw pixels in 0..255; `drawn` is
        the result of `draw`, `normalization` the `Normalization` of the network.
        """

    def result_size(self, size):
        """Height and width of the results for images of a size."""
        return size

    def matrix(self, drawn, before, after):
        """Transforms `(count, 3, 3)` as drawn, or `None` where nothing moves.

        See `keras_attn.pipelines.augment.geometry`; height and width are `before` those
        of the images and `after` those of the results.
        """
        return None

    def __call__(self, images, seed, normalization=IMAGENET, part=WHOLE):
        drawn = self.part_drawn(seed, tf.shape(images)[0], part)
        return self.apply(images, drawn, normalization)

    def part_drawn(self, seed, count, part):
        """`draw` of the `count` images of a `Part`."""
        return part.drawn(lambda whole: self.draw(seed, whole), count)
