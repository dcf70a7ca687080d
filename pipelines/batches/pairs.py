"""Batches of a few images of each of a few classes, for losses that compare images.

A batch drawn at random among hundreds of classes would hardly ever hold two images of
one class.
"""

import numpy as np
import tensorflow as tf

from keras_attn.pipelines.augment.operation import WHOLE
from keras_attn.pipelines.batches.build import augmented_batches, steps_of_epochs


def balanced_batches(
    images,
    labels,
    classes_per_batch,
    images_per_class,
    seed,
    epochs,
    initial_epoch=0,
    augmentation="translate_flip",
    class_names=None,
    parts=1,
    normalization=None,
    part=WHOLE,
):
    """Batches of `classes_per_batch` classes with `images_per_class` images each.

    Every epoch of `[initial_epoch, epochs)` shows every image at least once. A class
    comes in groups of `images_per_class` images in random order; the last group is
    filled up with images that the epoch has shown already, all different unless the
    class has fewer than `images_per_class`. The classes of a batch are drawn in
    proportion to their remaining groups. The epoch is as short as possible: there is no
    more than one group of a class in a batch, so a class that outweighs the others
    decides the number of batches, and groups of the others, drawn at random, come again
    to fill them. Order and augmentation depend on `(seed, epoch, step)` alone, as in
    `keras_attn.pipelines.batches.build.training_batches`. Images of a batch are in
    random order.

    Args:
        images: `(examples, height, width, 3)`, 8-bit; kept in memory once, or
            `StreamedImages`.
        labels: `(examples,)` integers.
        classes_per_batch: Classes in a batch, at least 2.
        images_per_class: Images of each of them, at least 2.
        seed: Seed of the order and of the augmentation.
        epochs: End of the epochs.
        initial_epoch: First epoch.
        augmentation, normalization, part: See
            `keras_attn.pipelines.batches.build.training_batches`.
        class_names: Names of the classes, for messages.
        parts: Equal consecutive parts of a batch, one for each device, that hold whole
            classes, so that each device has the mates of its images.

    Returns:
        `tf.data.Dataset` of `(images, labels)`, `balanced_steps_per_epoch` batches of
        `classes_per_batch * images_per_class` an epoch.

    Raises:
        ValueError: If a class has a single image, there are too few classes, or the
            numbers do not fit together.
    """
    members = members_of_classes(
        labels, classes_per_batch, images_per_class, class_names
    )
    if parts < 1 or classes_per_batch % parts or classes_per_batch // parts < 2:
        raise ValueError(
            "Expected at least 2 classes in each of the equal parts of a batch. "
            f"Received: classes_per_batch={classes_per_batch}, parts={parts}"
        )
    batch_size = classes_per_batch * images_per_class

    def plan(epoch):
        random = np.random.default_rng([seed, int(epoch)])
        batches = epoch_of_groups(members, classes_per_batch, images_per_class, random)
        batches = batches.reshape(len(batches), parts, -1)
        return random.permuted(batches, axis=-1).reshape(-1, batch_size)

    def order_of_epoch(epoch, _):
        order = tf.numpy_function(plan, [epoch], tf.int64, stateful=False)
        return tf.ensure_shape(order, (steps, batch_size))

    steps = _steps(_group_counts(members, images_per_class), classes_per_batch)
    order = steps_of_epochs(order_of_epoch, steps, seed, epochs, initial_epoch, part)
    return augmented_batches(
        images, labels, order, batch_size, augmentation, normalization, part
    )


def balanced_steps_per_epoch(
    labels, classes_per_batch, images_per_class, class_names=None
):
    """Number of batches that `balanced_batches` gives in an epoch."""
    members = members_of_classes(
        labels, classes_per_batch, images_per_class, class_names
    )
    return _steps(_group_counts(members, images_per_class), classes_per_batch)


def members_of_classes(labels, classes_per_batch, images_per_class, class_names=None):
    """The images of every class that has any, in the order of the labels; int64 arrays.

    The arguments of `balanced_batches` are checked.
    """
    if classes_per_batch < 2 or images_per_class < 2:
        raise ValueError(
            "Expected batches of at least 2 classes with at least 2 images each, to "
            f"compare. Received: classes_per_batch={classes_per_batch}, "
            f"images_per_class={images_per_class}"
        )
    present, groups = np.unique(np.asarray(labels), return_inverse=True)
    counts = np.bincount(groups.reshape(-1), minlength=len(present))
    if len(present) < classes_per_batch:
        raise ValueError(
            f"Expected images of at least classes_per_batch={classes_per_batch} "
            f"classes. Received: {len(present)} classes"
        )
    single = present[counts == 1]
    if len(single):
        name = single[0] if class_names is None else repr(class_names[single[0]])
        others = len(single) - 1
        also = f" (and so have {others} more classes)" if others else ""
        raise ValueError(
            "Expected at least 2 images of every class, so that each has another one "
            f"to be compared with. Received: 1 image of class {name}{also}"
        )
    order = np.argsort(groups.reshape(-1), kind="stable").astype("int64")
    return np.split(order, np.cumsum(counts)[:-1])


def epoch_of_groups(members, classes_per_batch, images_per_class, random):
    """The images of an epoch's batches, one class after the other in a batch.

    int64 `(steps, classes_per_batch, images_per_class)` of those of
    `members_of_classes`, drawn by `random`, a generator of NumPy.
    """
    needed = _group_counts(members, images_per_class)
    steps = _steps(needed, classes_per_batch)
    # The remaining places in the batches are filled at random.
    extra = steps * classes_per_batch - needed.sum()
    groups = needed + random.multivariate_hypergeometric(
        steps - needed, extra, method="marginals"
    )
    classes = _classes_of_batches(groups, classes_per_batch, random)
    images = np.concatenate(
        [
            _groups_of_class(chosen, images_per_class, count, random)
            for chosen, count in zip(members, groups, strict=True)
        ]
    )
    # The n-th batch with a class shows the n-th of its groups.
    places = np.argsort(classes.reshape(-1), kind="stable")
    batches = np.empty((classes.size, images_per_class), "int64")
    batches[places] = images
    return batches.reshape(*classes.shape, images_per_class)


def _group_counts(members, images_per_class):
    """Groups of each class that show all of its images."""
    return np.array([-(-len(chosen) // images_per_class) for chosen in members])


def _steps(groups, classes_per_batch):
    """Fewest batches of different classes that hold all groups."""
    return int(max(groups.max(), -(-groups.sum() // classes_per_batch)))


def _classes_of_batches(groups, classes_per_batch, random):
    """Classes of every batch, all different, each as often as it has groups.

    A class with as many groups left as there are batches left has to be taken. There
    are never too many of those, since the groups left fill the batches left exactly.
    """
    left = np.array(groups)
    steps = left.sum() // classes_per_batch
    classes = np.empty((steps, classes_per_batch), "int64")
    for step in range(steps):
        # The smallest of exponential draws with these rates: a draw without
        # replacement in proportion to the groups left.
        with np.errstate(divide="ignore"):
            keys = random.standard_exponential(len(left)) / left
        keys[left == steps - step] = 0
        classes[step] = np.argpartition(keys, classes_per_batch - 1)[:classes_per_batch]
        left[classes[step]] -= 1
    return classes


def _groups_of_class(members, size, count, random):
    """`count` groups of a class; all of its images before any group comes again."""
    once = -(-len(members) // size)
    rounds = [
        # Filled up from the start.
        np.resize(random.permutation(members), (once, size))
        for _ in range(-(-count // once))
    ]
    return np.concatenate(rounds)[:count]
