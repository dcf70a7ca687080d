"""Random erasing: noise where a part of an image was."""

import dataclasses
import math

import tensorflow as tf

from keras_attn.preprocessing import IMAGENET_MEAN, IMAGENET_STD

ATTEMPTS = 10


@dataclasses.dataclass(frozen=True)
class RandomErasing:
    """Noise in a box of some of the images (Zhong et al. 2020).

    The share of the area and the logarithm of height / width are uniform. Of ten such
    boxes the first that is smaller than the image, in height and in width, is taken,
    at a uniform place; if none is, nothing is erased. Every value of the box becomes a
    draw of N(0, 1) in the units of a network's normalised images.

    It moves nothing, so it has no part in
    `keras_attn.pipelines.augment.operations.sampled_transforms`: a map that goes with
        the images does not show what was erased.

    Args:
        probability: Share of the images that are erased.
        area: Least and greatest share of the area.
        aspect: Least and greatest height / width.
    """

    probability: float = 0.2
    area: tuple = (0.02, 0.33)
    aspect: tuple = (0.3, 3.3)

    def __call__(self, images, seed, normalization=(IMAGENET_MEAN, IMAGENET_STD)):
        """Erases.

        Args:
            images: `(batch, height, width, 3)`, raw pixels in 0..255. Noise is outside
                of that at times: it is kept in images of floats, and clipped and
                rounded in those of integers.
            seed: Integer tensor of shape `(2,)`.
            normalization: Mean and standard deviation of every channel, on the scale
                0..1, which the network normalises with.
        """
        shape = tf.shape(images)
        place_seed, noise_seed = tf.unstack(tf.random.split(seed))
        boxes = self.boxes(place_seed, shape[0], shape[1:3])[:, :, None]
        rows, columns = tf.range(shape[1]), tf.range(shape[2])
        in_rows = (rows >= boxes[:, 0]) & (rows < boxes[:, 2])
        in_columns = (columns >= boxes[:, 1]) & (columns < boxes[:, 3])
        erased = (in_rows[:, :, None] & in_columns[:, None])[..., None]
        mean, std = normalization
        noise = tf.random.stateless_normal(shape, noise_seed, mean, std) * 255
        if not images.dtype.is_floating:
            noise = tf.round(tf.clip_by_value(noise, 0, 255))
        return tf.where(erased, tf.cast(noise, images.dtype), images)

    def boxes(self, seed, count, size):
        """`(count, 4)` int32 boxes `(y0, x0, y1, x1)`, half-open; empty: not erased.

        Args:
            seed: Integer tensor of shape `(2,)`.
            count: Number of images.
            size: Height and width of the images.
        """
        chosen_seed, box_seed = tf.unstack(tf.random.split(seed))
        chosen = tf.random.stateless_uniform((count,), chosen_seed) < self.probability
        draws = tf.random.stateless_uniform((count, ATTEMPTS, 4), box_seed)
        size = tf.cast(size, tf.float32)
        low, high = self.area
        area = (low + (high - low) * draws[..., 0]) * size[0] * size[1]
        low, high = map(math.log, self.aspect)
        aspect = tf.exp(low + (high - low) * draws[..., 1])
        sides = tf.round(tf.sqrt(tf.stack([area * aspect, area / aspect], axis=-1)))
        fits = tf.reduce_all((sides >= 1) & (sides < size), axis=-1)
        first = tf.argmax(fits, axis=-1)
        sides = tf.gather(sides, first, axis=1, batch_dims=1)
        places = tf.gather(draws[..., 2:], first, axis=1, batch_dims=1)
        corners = tf.floor(places * (size - sides + 1))
        sides = tf.where(
            (chosen & tf.reduce_any(fits, axis=-1))[:, None],
            sides,
            tf.zeros_like(sides),
        )
        return tf.cast(tf.concat([corners, corners + sides], axis=-1), tf.int32)
