"""GridMask: a rotated grid of black squares on each image (Chen et al. 2020)."""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from keras_attn.pipelines.augment.operation import Operation


@dataclasses.dataclass(frozen=True)
class GridMask(Operation):
    """A rotated grid of black squares, another in each image.

    The same pixels as those of KerasCV's layer for the same draws.

    Args:
        ratio: Greatest side of a square, as a share of the grid's period.
        rotation: Greatest angle to either side, as a share of the full circle.
    """

    ratio: float = 0.5
    rotation: float = 0.15

    def draw(self, seed, count):
        """Ratio, period, column, row, angle: `(count, 5)`, uniform in [0, 1)."""

        def draw_one(number):
            own = tf.random.fold_in(seed, number)
            seeds = [tf.random.fold_in(own, place) for place in range(1, 6)]
            return tf.stack([tf.random.stateless_uniform((), each) for each in seeds])

        numbers = tf.range(count)
        return tf.map_fn(draw_one, numbers, fn_output_signature=tf.float32)

    def apply(self, images, drawn, normalization):
        masks = self.masks(drawn, images.shape[1:3])[..., None]
        return tf.where(masks, tf.zeros((), images.dtype), images)

    def masks(self, drawn, size):
        """Booleans `(count, *size)`, true where images are blackened."""
        height, width = size
        ratio, period, column, row, angle = tf.unstack(drawn, axis=1)
        # In single precision throughout, as the layer's.
        ends = tf.cast(size, tf.float32) * (0.5, 0.3)
        low, high = tf.reduce_min(ends), tf.reduce_max(ends) + 1
        period = period * (high - low) + low
        side = math.ceil(np.float32(math.hypot(height, width)))
        number = tf.range(1.0, side // low + 2)

        def inside(offset):
            ends = number * period[:, None] - (offset * period)[:, None]
            starts = ends - (ratio * self.ratio * period)[:, None]
            place = tf.range(side, dtype=tf.float32)[:, None]
            within = (place >= starts[:, None]) & (place < ends[:, None])
            within &= (number <= side // period[:, None] + 1)[:, None]
            return tf.reduce_any(within, axis=-1)

        grid = inside(row)[:, :, None] & inside(column)[:, None]
        grid = self._turned(tf.cast(grid, tf.float32)[..., None], angle, side)
        top, left = (side - height) // 2, (side - width) // 2
        return grid[:, top : top + height, left : left + width, 0] != 0

    def _turned(self, grid, angle, side):
        """Each grid turned about its centre."""
        turn = 2 * math.pi * self.rotation
        angle = angle * 2 * turn - turn
        cosine, sine, last = tf.cos(angle), tf.sin(angle), float(side - 1)
        x = (last - (cosine * last - sine * last)) / 2
        y = (last - (sine * last + cosine * last)) / 2
        nothing = tf.zeros_like(angle)
        rows = [cosine, -sine, x, sine, cosine, y, nothing, nothing]
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=grid,
            transforms=tf.stack(rows, axis=1),
            output_shape=(side, side),
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="CONSTANT",
        )
