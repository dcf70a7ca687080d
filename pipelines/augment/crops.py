"""Operations that show a part of each image, resampled or cut out."""

import dataclasses
import math
from typing import ClassVar

import tensorflow as tf

from keras_attn.pipelines.augment.geometry import affine, rescale, transform_images
from keras_attn.pipelines.augment.operation import Operation

ATTEMPTS = 10
ASPECT = (3 / 4, 4 / 3)


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop(Operation):
    """A box of random area and shape of each image, resized to the image's size.

    The usual training crop of ImageNet (Szegedy et al. 2015): the share of the area
    is uniform, the logarithm of width / height uniform between those of 3/4 and 4/3,
    the place uniform. The first of ten such boxes that fits into the image is taken;
    if none does, the largest central one whose shape is in that range.

    Args:
        smallest_area, greatest_area: Range of the box's share of the image's area.
    """

    smallest_area: float
    greatest_area: float = 1.0

    def draw(self, seed, count):
        """Area, shape, row, column: `(count, attempts, 4)`, uniform in [0, 1)."""
        return tf.random.stateless_uniform((count, ATTEMPTS, 4), seed)

    def apply(self, images, drawn, normalization):
        size = tuple(images.shape[1:3])
        cropped = tf.map_fn(
            lambda pair: self.of_image(*pair, size),
            (images, drawn),
            fn_output_signature=tf.TensorSpec((*size, images.shape[-1]), images.dtype),
        )
        return tf.ensure_shape(cropped, images.shape)

    def of_image(self, image, drawn, size):
        """Bilinear with antialiasing, as images are fitted for evaluation."""
        y0, x0, y1, x1 = tf.unstack(self.boxes(drawn[None], tf.shape(image)[:2])[0])
        return _resized(image[y0:y1, x0:x1], size)

    def boxes(self, drawn, size):
        """Boxes `(count, 4)` in images of a size, `(y0, x0, y1, x1)`, half-open."""
        sides = tf.cast(size, tf.float32)
        low, high = self.smallest_area, self.greatest_area
        areas = (low + (high - low) * drawn[..., 0]) * tf.reduce_prod(sides)
        low, high = map(math.log, ASPECT)
        aspects = tf.exp(low + (high - low) * drawn[..., 1])
        boxes = tf.round(tf.sqrt(tf.stack([areas / aspects, areas * aspects], -1)))
        fits = tf.reduce_all((boxes >= 1) & (boxes <= sides), axis=-1)
        first = tf.argmax(fits, axis=1)
        box = tf.gather(boxes, first, batch_dims=1)
        places = tf.gather(drawn, first, batch_dims=1)[:, 2:]
        narrowest, widest = ASPECT
        limits = tf.stack([sides[1] / narrowest, sides[0] * widest])
        found = tf.reduce_any(fits, axis=1)[:, None]
        box = tf.where(found, box, tf.minimum(sides, tf.round(limits)))
        space = sides - box
        corner = tf.minimum(tf.floor(places * (space + 1)), space)
        corner = tf.where(found, corner, tf.floor(space / 2))
        return tf.cast(tf.concat([corner, corner + box], axis=1), tf.int32)

    def matrix(self, drawn, before, after):
        return _boxes_shown(self.boxes(drawn, before), after)


@dataclasses.dataclass(frozen=True)
class RandomAffine(Operation):
    """A random crop, rotation and mirroring of each image, resampled once.

    The crop has the shape of the result and `share` of the side of the largest such
    box that fits into the image. It lies anywhere inside, is turned about its own
    centre and sometimes mirrored, all uniform and independent. Turned out of the
    image, its corners are zero.

    Args:
        degrees: Greatest angle to either side.
        share: Side of the crop, in (0, 1]; 0.875 is 448 of 512 pixels.
        mirror: Probability that an image is mirrored.
    """

    degrees: float
    share: float = 1.0
    mirror: float = 0.0
    turns: ClassVar[bool] = True

    def draw(self, seed, count):
        """Angle, row, column, mirroring: `(count, 4)`, uniform in [0, 1)."""
        return tf.random.stateless_uniform((count, 4), seed)

    def apply(self, images, drawn, normalization):
        size = tuple(images.shape[1:3])
        return transform_images(images, self.matrix(drawn, size, size), size)

    def matrix(self, drawn, before, after):
        before, after = tf.cast(before, tf.float32), tf.cast(after, tf.float32)
        scale = self.share * _scale(before, after)
        sides = scale[..., None] * after
        centre = sides / 2 + drawn[:, 1:3] * (before - sides)
        angle = math.radians(self.degrees) * (2 * drawn[:, 0] - 1)
        mirror = tf.where(drawn[:, 3] < self.mirror, -1.0, 1.0)
        cosine, sine = scale * tf.cos(angle), scale * tf.sin(angle)
        turn = tf.stack([cosine, -mirror * sine, sine, mirror * cosine], axis=-1)
        turn = tf.reshape(turn, (-1, 2, 2))
        return affine(turn, centre - tf.linalg.matvec(turn, after / 2))

    def of_image(self, image, drawn, size):
        """An image with more pixels than the result needs is reduced first.

        With antialiasing, as images are fitted for evaluation.
        """
        image_size = tf.cast(tf.shape(image)[:2], tf.float32)
        transform = self.matrix(drawn[None], image_size, size)
        needed = self.share * _scale(image_size, tf.cast(size, tf.float32))
        reduced_size = tf.maximum(tf.round(image_size / tf.maximum(needed, 1)), 1)
        reduced = tf.image.resize(
            tf.cast(image, tf.float32), tf.cast(reduced_size, tf.int32), antialias=True
        )
        transform = rescale(transform, reduced_size / image_size)
        found = transform_images(reduced[None], transform, size)[0]
        return tf.cast(tf.round(found), image.dtype)


@dataclasses.dataclass(frozen=True)
class Sized(Operation):
    """An operation with results of one size.

    Args:
        height, width: Size of the results.
    """

    height: int
    width: int

    def result_size(self, size):
        return self.height, self.width


class Resize(Sized):
    """The largest central box with the shape of the result, resized to its size."""

    def draw(self, seed, count):
        return tf.zeros((count, 0))

    def apply(self, images, drawn, normalization):
        y0, x0, y1, x1 = tf.unstack(self.box(images.shape[1:3]))
        return _resized(images[:, y0:y1, x0:x1], self.result_size(None))

    def of_image(self, image, drawn, size):
        return self.apply(image[None], drawn, None)[0]

    def box(self, size):
        """Box of an image of a size, `(y0, x0, y1, x1)`, half-open."""
        sides = tf.cast(size, tf.float32)
        scale = _scale(sides, tf.constant([self.height, self.width], tf.float32))
        box = tf.maximum(tf.round(scale * (self.height, self.width)), 1)
        corner = tf.floor((sides - box) / 2)
        return tf.cast(tf.concat([corner, corner + box], axis=0), tf.int32)

    def matrix(self, drawn, before, after):
        boxes = tf.repeat(self.box(before)[None], tf.shape(drawn)[0], axis=0)
        return _boxes_shown(boxes, after)


class RandomCrop(Sized):
    """A box of each image at a place of its own."""

    def draw(self, seed, count):
        """Row and column: `(count, 2)`, uniform in [0, 1)."""
        return tf.random.stateless_uniform((count, 2), seed)

    def apply(self, images, drawn, normalization):
        corners = self.corners(drawn, images.shape[1:3])
        return windows(images, corners, self.result_size(None))

    def corners(self, drawn, size):
        """First row and column of each box, int32 `(count, 2)`."""
        space = tf.cast(size, tf.float32) - (self.height, self.width)
        return tf.cast(tf.minimum(tf.floor(drawn * (space + 1)), space), tf.int32)

    def matrix(self, drawn, before, after):
        corners = self.corners(drawn, before)
        return _boxes_shown(tf.concat([corners, corners + after], axis=1), after)


def windows(images, corners, size):
    """Boxes of one size, each at a place of its own.

    Args:
        images: `(batch, height, width, channels)`.
        corners: First row and column of each box, int32 `(batch, 2)`; the boxes lie
            inside.
        size: Height and width of the boxes.
    """
    rows, columns = (corners[:, i, None] + tf.range(size[i]) for i in (0, 1))
    rows = tf.gather(images, rows, axis=1, batch_dims=1)
    return tf.gather(rows, columns, axis=2, batch_dims=1)


def _resized(images, size):
    resized = tf.image.resize(tf.cast(images, tf.float32), size, antialias=True)
    return tf.cast(tf.round(resized), images.dtype)


def _boxes_shown(boxes, size):
    """Transforms whose results, of a size, are boxes `(count, 4)`."""
    boxes = tf.cast(boxes, tf.float32)
    scales = (boxes[:, 2:] - boxes[:, :2]) / tf.cast(size, tf.float32)
    return affine(tf.linalg.diag(scales), boxes[:, :2])


def _scale(image_size, size):
    """Side of a pixel of the result, as large as the image allows."""
    return tf.reduce_min(image_size / size, axis=-1)
