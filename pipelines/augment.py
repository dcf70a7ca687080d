"""Stateless augmentation: a batch is a function of its seed and nothing else.

Why not Keras's own random layers: see docs/augmentation.md.
"""

import difflib
import math

import tensorflow as tf

PADDING = 4
GRID_RATIO = (0.0, 0.5)
GRID_ROTATION = 0.15


def random_translate(images, seed, padding=PADDING):
    """Zero-pads every side and crops back at a place of each image's own.

    Args:
        images: `(batch, height, width, channels)`.
        seed: Integer tensor of shape `(2,)`.
        padding: Cells added on every side.

    Returns:
        Tensor of the shape and dtype of `images`.
    """
    offsets = tf.random.stateless_uniform(
        (2, tf.shape(images)[0]), seed, -padding, padding + 1, tf.int32
    )
    return translate(images, tf.transpose(offsets), padding)


def translate(images, offsets, padding=PADDING):
    """Shows every image from `(row, column)` on; zero where there is no image.

    Args:
        images: `(batch, height, width, channels)`.
        offsets: `(batch, 2)` integers in `[-padding, padding]`.
        padding: Greatest offset.
    """
    height, width = tf.shape(images)[1], tf.shape(images)[2]
    edges = [[0, 0], [padding, padding], [padding, padding], [0, 0]]
    padded = tf.pad(images, edges)
    rows = padding + offsets[:, :1] + tf.range(height)
    columns = padding + offsets[:, 1:] + tf.range(width)
    cropped = tf.gather(padded, rows, axis=1, batch_dims=1)
    return tf.gather(cropped, columns, axis=2, batch_dims=1)


def random_flip(images, seed):
    """Mirrors each image with probability one half."""
    draws = tf.random.stateless_uniform((tf.shape(images)[0], 1, 1, 1), seed)
    return tf.where(draws < 0.5, tf.reverse(images, axis=[2]), images)


def random_grid_mask(images, seed):
    """KerasCV's GridMask: blackens a rotated grid of squares, another in each image.

    The layer draws from a generator whose state a resumed run would not have, so it
    is given the draws of the seed instead.
    """
    layer = _grid_mask_layer()

    def mask_one(arguments):
        image, image_seed = arguments
        draws = _SeededDraws(image_seed)
        layer._random_generator = draws
        shape = tf.shape(image)
        grid = layer._compute_grid_mask(shape, draws.uniform((), *GRID_RATIO))
        grid = tf.cast(grid, tf.float32)[None, :, :, None]
        turn = 2 * math.pi * GRID_ROTATION
        angles = {"angles": draws.uniform((1,), -turn, turn)}
        grid = layer.random_rotate.augment_images(grid, angles)[0]
        transformation = grid, tf.zeros_like(image)
        return layer.augment_image(image, transformation=transformation)

    count = tf.shape(images)[0]
    seeds = tf.map_fn(
        lambda number: tf.random.fold_in(seed, number),
        tf.range(count),
        fn_output_signature=seed.dtype,
    )
    masked = tf.map_fn(mask_one, (images, seeds), fn_output_signature=images.dtype)
    return tf.ensure_shape(masked, images.shape)


class _SeededDraws:
    """Stands in for `tf.random.Generator`: the same draws for the same seed."""

    def __init__(self, seed):
        self.seed = seed
        self.count = 0

    def uniform(self, shape, minval, maxval, dtype=tf.float32):
        self.count += 1
        seed = tf.random.fold_in(self.seed, self.count)
        return tf.random.stateless_uniform(shape, seed, minval, maxval, dtype)


def _grid_mask_layer():
    try:
        import keras_cv
    except ImportError as error:
        raise ImportError(
            "The augmentation translate_flip_grid_mask needs KerasCV: "
            "pip install 'keras-attn[augment]'"
        ) from error
    return keras_cv.layers.GridMask(GRID_RATIO, GRID_ROTATION)


AUGMENTATIONS = {
    # The class-embedding paper's: pad 4 and crop, horizontal flip.
    "translate_flip": (random_translate, random_flip),
    "translate_flip_grid_mask": (random_translate, random_flip, random_grid_mask),
    "none": (),
}


def augment(images, seed, name="translate_flip"):
    """Applies the augmentation of that name to a batch.

    Args:
        images: `(batch, height, width, channels)`.
        seed: Integer tensor of shape `(2,)`; the same seed gives the same batch.
        name: One of `AUGMENTATIONS`.

    Raises:
        ValueError: If there is no augmentation of that name.
        ImportError: If it needs KerasCV, which is not installed.
    """
    check_augmentation(name)
    for number, operation in enumerate(AUGMENTATIONS[name]):
        images = operation(images, tf.random.fold_in(seed, number))
    return images


def check_augmentation(name):
    if name not in AUGMENTATIONS:
        nearest = difflib.get_close_matches(str(name), AUGMENTATIONS, 1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(
            f"Expected the augmentation to be one of {tuple(AUGMENTATIONS)}. "
            f"Received: {name!r}.{hint}"
        )
