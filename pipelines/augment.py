"""Stateless augmentation: a batch is a function of its seed and nothing else."""

import difflib

import tensorflow as tf

PADDING = 4


def random_translate(images, seed, padding=PADDING):
    """Zero-pads every side and crops back at a place of each image's own.

    Args:
        images: `(batch, height, width, channels)`.
        seed: Integer tensor of shape `(2,)`.
        padding: Cells added on every side.

    Returns:
        Tensor of the shape and dtype of `images`.
    """
    shape = tf.shape(images)
    batch, height, width = shape[0], shape[1], shape[2]
    edges = [[0, 0], [padding, padding], [padding, padding], [0, 0]]
    padded = tf.pad(images, edges)
    offsets = tf.random.stateless_uniform(
        (2, batch, 1), seed, 0, 2 * padding + 1, tf.int32
    )
    rows = offsets[0] + tf.range(height)
    columns = offsets[1] + tf.range(width)
    cropped = tf.gather(padded, rows, axis=1, batch_dims=1)
    return tf.gather(cropped, columns, axis=2, batch_dims=1)


def random_flip(images, seed):
    """Mirrors each image with probability one half."""
    draws = tf.random.stateless_uniform((tf.shape(images)[0], 1, 1, 1), seed)
    return tf.where(draws < 0.5, tf.reverse(images, axis=[2]), images)


AUGMENTATIONS = {
    # The class-embedding paper's: pad 4 and crop, horizontal flip.
    "translate_flip": (random_translate, random_flip),
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
