"""Random erasing: noise in place of a part of an image."""

import dataclasses
import math
from typing import ClassVar

import tensorflow as tf

from keras_attn.pipelines.augment.operation import Operation

ATTEMPTS = 10


@dataclasses.dataclass(frozen=True)
class RandomErasing(Operation):
    """Noise in a box of some of the images (Zhong et al. 2020).

    The share of the area and the logarithm of height / width are uniform. The first of
    ten such boxes that is smaller than the image, in height and in width, is taken, at
    a uniform place; if none is, nothing is erased. Every value of the box becomes a
    draw of N(0, 1) in the units of the network's normalised images. Noise is sometimes
    outside of 0..255: images of floats keep it, integers are clipped and rounded.

    It moves nothing: a map that goes with the images does not show what was erased.

    Args:
        probability: Share of the images that are erased.
        area: Least and greatest share of the area.
        aspect: Least and greatest height / width.
    """

    probability: float = 0.2
    area: tuple = (0.02, 0.33)
    aspect: tuple = (0.3, 3.3)
    exceeds_range: ClassVar[bool] = True

    def draw(self, seed, count):
        """Choice `(count,)`, boxes and noise.

        The boxes' area, shape, row and column are `(count, attempts, 4)`, uniform in
        [0, 1) as is the choice. The noise is `(count, 4)`: the two numbers of its seed,
        the image's place in the batch, and the length of the batch.
        """
        place_seed, noise_seed = tf.unstack(tf.random.split(seed))
        chosen_seed, box_seed = tf.unstack(tf.random.split(place_seed))
        chosen = tf.random.stateless_uniform((count,), chosen_seed)
        boxes = tf.random.stateless_uniform((count, ATTEMPTS, 4), box_seed)
        noise = [tf.fill((count,), each) for each in tf.unstack(noise_seed)]
        noise += [tf.range(count), tf.fill((count,), count)]
        noise = [tf.cast(each, noise_seed.dtype) for each in noise]
        return chosen, boxes, tf.stack(noise, axis=-1)

    def apply(self, images, drawn, normalization):
        shape = tf.shape(images)
        boxes = self.boxes(drawn, shape[1:3])[:, :, None]
        rows, columns = tf.range(shape[1]), tf.range(shape[2])
        in_rows = (rows >= boxes[:, 0]) & (rows < boxes[:, 2])
        in_columns = (columns >= boxes[:, 1]) & (columns < boxes[:, 3])
        erased = (in_rows[:, :, None] & in_columns[:, None])[..., None]
        mean, std = normalization.mean, normalization.std
        *seed, place, length = tf.unstack(drawn[-1][0])
        noise_shape = tf.concat([[length], shape[1:]], axis=0)
        noise = tf.random.stateless_normal(noise_shape, seed, mean, std)
        noise = noise[place : place + shape[0]] * 255
        if not images.dtype.is_floating:
            noise = tf.round(tf.clip_by_value(noise, 0, 255))
        return tf.where(erased, tf.cast(noise, images.dtype), images)

    def boxes(self, drawn, size):
        """`(count, 4)` int32 boxes `(y0, x0, y1, x1)`, half-open; empty: not erased."""
        chosen, draws, _ = drawn
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
        erased = (chosen < self.probability) & tf.reduce_any(fits, axis=-1)
        sides = tf.where(erased[:, None], sides, 0.0)
        return tf.cast(tf.concat([corners, corners + sides], axis=-1), tf.int32)
