"""Random brightness, contrast and saturation."""

import dataclasses

import tensorflow as tf

from keras_attn.pipelines.augment.operation import Operation

# Weights of red, green and blue in grey (ITU-R BT.601).
GREY = (0.299, 0.587, 0.114)


@dataclasses.dataclass(frozen=True)
class Colour(Operation):
    """Brightness, then contrast, then saturation, each by a factor of the image's own.

    Factors are uniform between one less and one more an amount. Brightness multiplies;
    contrast and saturation scale the distances to the image's mean grey and to the
    pixel's own grey. Results stay in 0..255; integers are rounded once, at the end.

    Args:
        brightness, contrast, saturation: Amounts in [0, 1]; 0 changes nothing.
    """

    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2

    def draw(self, seed, count):
        """Factors `(count, 3)`."""
        amounts = tf.constant([self.brightness, self.contrast, self.saturation])
        return 1 + amounts * tf.random.stateless_uniform((count, 3), seed, -1, 1)

    def apply(self, images, drawn, normalization):
        brightness, contrast, saturation = tf.unstack(drawn[:, None, None], axis=-1)
        found = tf.cast(images, tf.float32) * brightness[..., None]
        found = tf.clip_by_value(found, 0, 255)
        mean = tf.reduce_mean(_grey(found), axis=(1, 2), keepdims=True)
        found = tf.clip_by_value(mean + contrast[..., None] * (found - mean), 0, 255)
        grey = _grey(found)
        found = tf.clip_by_value(grey + saturation[..., None] * (found - grey), 0, 255)
        if not images.dtype.is_floating:
            found = tf.round(found)
        return tf.cast(found, images.dtype)


def _grey(images):
    return tf.reduce_sum(images * GREY, axis=-1, keepdims=True)
