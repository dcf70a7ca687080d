"""Batches of images and labels for training and evaluation."""

import zlib

import numpy as np
import tensorflow as tf

from keras_attn.pipelines.augment.composition import check_augmentation
from keras_attn.pipelines.augment.operation import IMAGENET, WHOLE
from keras_attn.pipelines.augment.operations import Augmentation
from keras_attn.pipelines.files import digest_of
from keras_attn.pipelines.images.streaming import PREFETCH, StreamedImages


def check_arrays(images, labels, num_classes):
    """Raises one clear error for arrays that `fit` would fail on late, or not at all.

    Args:
        images: `(examples, height, width, 3)`, 8-bit.
        labels: `(examples,)`, integers in `[0, num_classes)`.
        num_classes: Number of classes.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise ValueError(
            "Expected 8-bit RGB images of shape (examples, height, width, 3). "
            f"Received: shape {images.shape} of {images.dtype}"
        )
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"Expected one label for each of {len(images)} images. "
            f"Received: labels of shape {labels.shape}"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if wrong.size:
        raise ValueError(
            f"Expected labels in [0, {num_classes}). Received: label "
            f"{labels[wrong[0]]} at example {wrong[0]} ({wrong.size} such labels)"
        )


def checksum(splits):
    """A text that differs between different data.

    Args:
        splits: Dict from names to `(images, labels)`.
    """
    contents = []
    for name in sorted(splits):
        for array in splits[name]:
            streamed = isinstance(array, StreamedImages)
            contents += [name, array.digest() if streamed else array]
    return digest_of(*contents)


def is_checksum_of(known, splits):
    """Tests whether data has a checksum, which may be one of an earlier version."""
    return known == (_crc32(splits) if len(known) == 8 else checksum(splits))


def _crc32(splits):
    """The checksum as earlier versions recorded it."""
    value = 0
    for name in sorted(splits):
        for array in splits[name]:
            value = zlib.crc32(f"{name} {array.shape} {array.dtype}".encode(), value)
            if isinstance(array, StreamedImages):
                content = array.digest().encode()
            else:
                content = np.ascontiguousarray(array)
            value = zlib.crc32(content, value)
    return f"{value:08x}"


def steps_per_epoch(examples, batch_size):
    """Full batches in one pass; an incomplete last batch is left out."""
    steps = examples // batch_size
    if not steps:
        raise ValueError(
            "Expected a batch size of at most the number of training examples. "
            f"Received: batch_size={batch_size} for {examples} examples"
        )
    return steps


def training_batches(
    images,
    labels,
    batch_size,
    seed,
    epochs,
    initial_epoch=0,
    augmentation="translate_flip",
    normalization=None,
    part=WHOLE,
):
    """Shuffled and augmented batches of the epochs `[initial_epoch, epochs)`.

    Order and augmentation depend on `(seed, epoch, step)` alone, so a run that
    resumes at an epoch sees what an uninterrupted one would have seen.

    Args:
        images: `(examples, height, width, 3)`, 8-bit; kept in memory once, or
            `StreamedImages`.
        labels: `(examples,)` integers.
        batch_size: Images in a batch; an incomplete last batch is left out.
        seed: Seed of the order and of the augmentation.
        epochs: End of the epochs.
        initial_epoch: First epoch.
        augmentation: Name or composition, see
            `keras_attn.pipelines.augment.composition`.
        normalization: `Normalization`, or `ImageSpec`, of the network, for noise; by
            default that of the spec of streamed images, or ImageNet's.
        part: `keras_attn.pipelines.augment.operation.Part` of every batch that is
            made, and read: that of one of several processes.

    Returns:
        `tf.data.Dataset` of `(images, labels)` with all epochs in a row, each of
        `steps_per_epoch(len(labels), batch_size)` batches.
    """
    steps = shuffled_steps(len(labels), batch_size, seed, epochs, initial_epoch, part)
    return augmented_batches(
        images, labels, steps, batch_size, augmentation, normalization, part
    )


def augmented_batches(
    images, labels, steps, batch_size, augmentation, normalization=None, part=WHOLE
):
    """Augmented batches `(images, labels)` of given images.

    `steps` is a `tf.data.Dataset` of `(indices, seed)` of the batches: the images, and
    the `(2,)` integers that decide the augmentation. Every pass gives the same. The
    other arguments are those of `training_batches`.
    """
    check_augmentation(augmentation, images.shape[1:3])
    augment = Augmentation(augmentation)
    normalization = normalization or default_normalization(images)
    size = part.size(batch_size)
    with tf.device("CPU:0"):
        labels = tf.convert_to_tensor(labels)
    if isinstance(images, StreamedImages):
        dataset = images.augmented_batches(steps, size, augment, normalization, part)
        dataset = dataset.map(lambda batch, chosen: (batch, tf.gather(labels, chosen)))
        return finish(dataset, PREFETCH)
    with tf.device("CPU:0"):
        images = tf.convert_to_tensor(images)

    # Here as elsewhere, converting what has no conditions on tensors takes long.
    @tf.autograph.experimental.do_not_convert
    def load(indices, step_seed):
        batch = tf.gather(images, indices)
        batch = augment(batch, step_seed, normalization, part=part)
        batch = tf.ensure_shape(batch, (size, *images.shape[1:]))
        return batch, tf.gather(labels, indices)

    return finish(
        steps.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    )


def default_normalization(images):
    """That of the spec of streamed images, or ImageNet's."""
    return images.spec if isinstance(images, StreamedImages) else IMAGENET


def shuffled_steps(examples, batch_size, seed, epochs, initial_epoch=0, part=WHOLE):
    """`(indices, seed)` of every batch of `training_batches`, which see."""
    steps = steps_per_epoch(examples, batch_size)

    def order_of_epoch(epoch, epoch_seed):
        order = tf.random.experimental.stateless_shuffle(tf.range(examples), epoch_seed)
        return tf.reshape(order[: steps * batch_size], (steps, batch_size))

    return steps_of_epochs(order_of_epoch, steps, seed, epochs, initial_epoch, part)


def steps_of_epochs(order_of_epoch, steps, seed, epochs, initial_epoch, part=WHOLE):
    """`(indices, seed)` of every batch of the epochs `[initial_epoch, epochs)`.

    A data set; every batch has a seed of its own, and of its indices those of the
    `part`. `order_of_epoch` leads from the
    number of an epoch and the seed of its order, `(2,)` integers, to the images of its
    batches, `(steps, batch_size)`.
    """

    @tf.autograph.experimental.do_not_convert
    def batches_of_epoch(epoch):
        epoch_seed = tf.random.fold_in(tf.constant([seed, 0], tf.int32), epoch)
        step_seeds = tf.map_fn(
            lambda step: tf.random.fold_in(epoch_seed, step),
            tf.range(1, steps + 1),
            fn_output_signature=epoch_seed.dtype,
        )
        order = order_of_epoch(epoch, epoch_seed)
        order = order[:, part.of(part.size(order.shape[1]))]
        return tf.data.Dataset.from_tensor_slices((order, step_seeds))

    every_epoch = tf.data.Dataset.range(initial_epoch, epochs, output_type=tf.int32)
    return every_epoch.flat_map(batches_of_epoch)


def evaluation_batches(images, labels, batch_size):
    """All examples in order, `(images, labels)`; the last batch has the rest."""
    if isinstance(images, StreamedImages):
        indices = tf.data.Dataset.range(len(labels)).batch(batch_size)
        labels = tf.data.Dataset.from_tensor_slices(labels).batch(batch_size)
        batches = images.batches(indices, batch_size)
        return finish(tf.data.Dataset.zip(batches, labels), PREFETCH)
    with tf.device("CPU:0"):
        dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    return finish(dataset.batch(batch_size))


def own_examples(examples, batch_size, part):
    """Those of every `part.count`-th batch of `evaluation_batches`, as an index."""
    if part.count == 1:
        return slice(None)
    places = np.arange(examples)
    return places[places // batch_size % part.count == part.number]


def evaluation_batch_size(examples, largest, devices=1):
    """The largest batch size, up to `largest`, that gives every device some images.

    Devices share a batch in equal parts, the last one takes the rest; Keras fails if
    that is empty, and if the first batch does not divide.
    """
    for size in range(min(largest, examples) // devices * devices, 0, -devices):
        rest = examples % size
        share = -(-rest // devices)
        if not rest or rest > share * (devices - 1):
            return size
    raise ValueError(
        f"Expected validation images that {devices} devices can share. "
        f"Received: {examples} images"
    )


def label_outputs(dataset, outputs):
    """The image's label for every named output of the model that learns from it."""
    return dataset.map(
        lambda images, labels: (images, {name: labels for name in outputs}),
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def finish(dataset, prefetch=tf.data.AUTOTUNE):
    """A data set ready for use: not split by file, batches made ahead."""
    options = tf.data.Options()
    # All workers hold all data; batches are split over the devices of one machine.
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.OFF
    )
    return dataset.with_options(options).prefetch(prefetch)
