"""Batches of images with their attention maps, moved by the same transforms.

"Attention-masked residuals": a network takes an image and the map of a frozen
transformer, which has to describe the augmented image. Either the map of the clean
image is read from a cache and moved by the transform that was drawn for the image
(`masked_batches`), or the transformer sees every augmented image
(`online_masked_batches`): many times more expensive, and exact, since a transformer's
maps move with the image only roughly and a cached map does not show what was erased. On
clean images both are the same.
"""

import keras
import numpy as np
import tensorflow as tf

from keras_attn.pipelines.attention_maps.compute import as_floats, fitted, map_shape
from keras_attn.pipelines.attention_maps.inference import inference
from keras_attn.pipelines.augment.composition import check_augmentation
from keras_attn.pipelines.augment.geometry import rescale, transform_maps
from keras_attn.pipelines.augment.operation import WHOLE
from keras_attn.pipelines.augment.operations import Augmentation
from keras_attn.pipelines.batches import build
from keras_attn.pipelines.images.streaming import PREFETCH, StreamedImages


def masked_batches(
    images,
    maps,
    labels,
    batch_size,
    seed,
    epochs,
    initial_epoch=0,
    augmentation="translate_flip_erase",
    image_size=None,
    interpolation="nearest",
    fill=0.0,
    normalization=None,
    part=WHOLE,
):
    """Shuffled, augmented batches of images and the maps of the clean images.

    The images are those of `keras_attn.pipelines.batches.build.training_batches` with
    the same seed, but for noise, which is kept as it is drawn, and the size. A map is
    moved by the same transform at its own resolution and enlarged, in one step: 7
    pixels of 224 for each pixel of 32. What was erased in an image stays in its map.

    Args:
        images: `(examples, height, width, 3)`, 8-bit; kept in memory once, or
            `StreamedImages`, whose fitted images are cropped as those in memory are.
        maps: `(examples, rows, columns, channels)`: floats, or uint8 for [0, 1], as
            from a `MapCache`.
        labels, batch_size, seed, epochs, initial_epoch, augmentation, normalization,
            part: See `training_batches`.
        image_size: Height and width of the batches' images, enlarged after the
            augmentation, bicubic with half-pixel centres; their own by default.
        interpolation: `"nearest"` or `"bilinear"`, of the maps.
        fill: Value of the maps where there is no image.

    Returns:
        `tf.data.Dataset` of `({"images", "attention_map"}, labels)`: raw pixels, 8-bit
        as long as they are neither enlarged nor erased and float32 otherwise; maps
        `(batch_size, *image_size, channels)`, float32. Order and augmentation depend on
        `(seed, epoch, step)` alone.

    Raises:
        ValueError: If images, maps and labels, or the other arguments, do not fit.
    """
    maps = _checked_maps(maps, images, labels)
    size = tuple(image_size or images.shape[1:3])
    check_augmentation(augmentation, images.shape[1:3])
    augment = Augmentation(augmentation)
    finished = _augmenting(images, augment, size, normalization, part)
    own_size = part.size(batch_size)
    with tf.device("CPU:0"):
        labels, maps = tf.convert_to_tensor(labels), tf.convert_to_tensor(maps)

    @tf.autograph.experimental.do_not_convert
    def combine(batch, indices, step_seed):
        transforms = augment.transforms(
            step_seed, own_size, images.shape[1:3], part=part
        )
        moved = placed_maps(
            as_floats(tf.gather(maps, indices)),
            transforms,
            images.shape[1:3],
            size,
            interpolation,
            fill,
            augment.turns,
        )
        pair = {"images": finished(batch, step_seed), "attention_map": moved}
        return pair, tf.gather(labels, indices)

    steps = build.shuffled_steps(
        len(labels), batch_size, seed, epochs, initial_epoch, part
    )
    return build.finish(_combined(images, steps, own_size, combine))


def online_masked_batches(
    images,
    map_model,
    labels,
    batch_size,
    seed,
    epochs,
    initial_epoch=0,
    augmentation="translate_flip_erase",
    image_size=None,
    interpolation="nearest",
    normalization=None,
    part=WHOLE,
):
    """The batches of `masked_batches` with the maps of the augmented images.

    Args:
        images, labels: See `masked_batches`.
        map_model: Keras model from raw images of the size `image_size` to maps
            `(batch, rows, columns, channels)`. It runs in inference mode, on its
            device, while the batches are made.
        batch_size, seed, epochs, initial_epoch, augmentation, image_size,
            interpolation, normalization, part: See `masked_batches`.

    Returns:
        `tf.data.Dataset`, see `masked_batches`.
    """
    size = tuple(image_size or images.shape[1:3])
    check_augmentation(augmentation, images.shape[1:3])
    augment = Augmentation(augmentation)
    finished = _augmenting(images, augment, size, normalization, part)
    with tf.device("CPU:0"):
        labels = tf.convert_to_tensor(labels)

    @tf.autograph.experimental.do_not_convert
    def combine(batch, indices, step_seed):
        return finished(batch, step_seed), tf.gather(labels, indices)

    steps = build.shuffled_steps(
        len(labels), batch_size, seed, epochs, initial_epoch, part
    )
    dataset = _combined(images, steps, part.size(batch_size), combine)
    return build.finish(dataset.map(_online(map_model, size, interpolation)), PREFETCH)


def masked_evaluation_batches(
    images, maps, labels, batch_size, image_size=None, interpolation="nearest"
):
    """All clean images in order with their maps, the last batch as large as is left.

    Arguments are those of `masked_batches`. In place of maps, the model of
    `online_masked_batches` gives the same, but for the steps in which a cache stores
    values. Images are 8-bit.
    """
    size = tuple(image_size or images.shape[1:3])
    is_model = isinstance(maps, keras.Model)
    arrays = {"labels": np.asarray(labels)}
    if not is_model:
        arrays["maps"] = _checked_maps(maps, images, labels)
    with tf.device("CPU:0"):
        others = tf.data.Dataset.from_tensor_slices(arrays).batch(batch_size)
        if isinstance(images, StreamedImages):
            indices = tf.data.Dataset.range(len(labels)).batch(batch_size)
            pixels = images.batches(indices, batch_size)
        else:
            pixels = tf.data.Dataset.from_tensor_slices(images).batch(batch_size)
    dataset = tf.data.Dataset.zip(pixels, others)
    if is_model:
        dataset = dataset.map(lambda batch, with_it: (fitted(batch, size), with_it))
        dataset = dataset.map(_online(maps, size, interpolation))
        return build.finish(
            dataset.map(lambda pair, with_it: (pair, with_it["labels"])), PREFETCH
        )

    @tf.autograph.experimental.do_not_convert
    def combine(batch, with_it):
        enlarged = _enlarged(as_floats(with_it["maps"]), size, interpolation)
        pair = {"images": fitted(batch, size), "attention_map": enlarged}
        return pair, with_it["labels"]

    return build.finish(dataset.map(combine, num_parallel_calls=PREFETCH))


def constant_maps(maps, value=1.0):
    """A control: maps without information, for a network with the same parameters.

    Use `fill=value` with them, or the border that a translation leaves shows.

    Args:
        maps: See `masked_batches`; only the shape is taken.
        value: Value of all cells, in [0, 1].
    """
    return np.full(np.shape(maps), value, "float16")


def shuffled_maps(maps, seed):
    """A control: for every image the map of another one, each map used once.

    Args:
        maps: See `masked_batches`, of at least two images.
        seed: Seed of the order.
    """
    return np.asarray(maps)[other_images(len(maps), seed)]


def other_images(count, seed):
    """For every image the number of another one, each number used once.

    Args:
        count: Number of images, at least two.
        seed: Seed of the order.
    """
    if count < 2:
        raise ValueError(
            f"Expected the maps of at least 2 images to shuffle. Received: {count}"
        )
    order = np.random.default_rng(seed).permutation(count)
    # One round through all images, so that none keeps its own.
    found = np.empty_like(order)
    found[order] = np.roll(order, 1)
    return found


def placed_maps(
    maps,
    transforms,
    image_size,
    size,
    interpolation="nearest",
    fill=0.0,
    turned=False,
):
    """Maps of whole images, as large as the images were made after their transforms.

    `(count, *size, channels)` of floats `(count, rows, columns, channels)`. The
    transforms are those of the images, whose height and width are `image_size` before
    and after them; other arguments are those of
    `keras_attn.pipelines.augment.geometry.transform_maps`.
    """
    cells = np.divide(tuple(maps.shape[1:3]), image_size, dtype="float32")
    enlarged = np.divide(size, image_size, dtype="float32")
    transforms = rescale(transforms, cells, enlarged)
    return transform_maps(maps, transforms, size, interpolation, fill, turned)


def _combined(images, steps, batch_size, combine):
    """`combine(batch, indices, seed)` of every step, the batch as it is stored."""
    if isinstance(images, StreamedImages):
        indices = steps.map(lambda indices, step_seed: indices)
        # The steps come again in the same order, since their seed decides it.
        dataset = tf.data.Dataset.zip(images.batches(indices, batch_size), steps)
        return dataset.map(
            lambda batch, step: combine(
                tf.ensure_shape(batch, (batch_size, *images.shape[1:])), *step
            ),
            num_parallel_calls=PREFETCH,
            deterministic=True,
        )
    with tf.device("CPU:0"):
        pixels = tf.convert_to_tensor(images)

    @tf.autograph.experimental.do_not_convert
    def load(indices, step_seed):
        batch = tf.gather(pixels, indices)
        batch = tf.ensure_shape(batch, (batch_size, *images.shape[1:]))
        return combine(batch, indices, step_seed)

    return steps.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _augmenting(images, augment, size, normalization, part):
    """A function of a batch and its seed: augmented, then enlarged."""
    normalization = normalization or build.default_normalization(images)

    def augmented(batch, step_seed):
        if augment.exceeds_range:
            # Noise outside of 0..255 is not to be clipped.
            batch = tf.cast(batch, tf.float32)
        batch = augment(batch, step_seed, normalization, part=part)
        if tuple(batch.shape[1:3]) == size:
            return batch
        return tf.image.resize(batch, size, "bicubic", antialias=True)

    return augmented


def _enlarged(maps, size, interpolation):
    identity = tf.eye(3, batch_shape=(tf.shape(maps)[0],))
    return placed_maps(maps, identity, size, size, interpolation)


def _online(map_model, size, interpolation):
    """A function of images and what goes with them, that adds the model's maps."""
    shape = map_shape(map_model, size)

    call = inference(map_model)

    def predict(batch):
        return call(batch).astype("float32")

    @tf.autograph.experimental.do_not_convert
    def add(batch, with_it):
        maps = tf.numpy_function(predict, [batch], tf.float32, stateful=False)
        maps = tf.ensure_shape(maps, (batch.shape[0], *shape))
        enlarged = _enlarged(maps, size, interpolation)
        return {"images": batch, "attention_map": enlarged}, with_it

    return add


def _checked_maps(maps, images, labels):
    shape = np.shape(maps)
    if len(shape) != 4 or not len(images) == len(labels) == shape[0]:
        raise ValueError(
            "Expected as many images, labels and maps (examples, rows, columns, "
            f"channels). Received: {len(images)} images, {len(labels)} labels, maps of "
            f"shape {shape}"
        )
    maps = np.asarray(maps)
    if maps.dtype != np.uint8 and maps.dtype.kind != "f":
        raise ValueError(f"Expected maps of floats or uint8. Received: {maps.dtype}")
    return maps
