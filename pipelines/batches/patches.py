"""Localised patches of a data set, for fine-tuning a network on them.

AnchorNet paper, "Localizing Multi-scale Semantic Patches for Image Classification",
sections 4.1 and 4.3: a frozen localiser finds where the evidence is, and a downstream
network learns from what is there. The boxes are computed once and kept on disk; the
pixels are cut out of the images when a batch needs them.
"""

import json
import pathlib

import keras
import numpy as np
import tensorflow as tf

from keras_attn.pipelines.augment.operation import WHOLE
from keras_attn.pipelines.batches.build import evaluation_batches, finish
from keras_attn.pipelines.files import digest_of
from keras_attn.pipelines.images.streaming import PREFETCH, StreamedImages, clear_errors
from keras_attn.pipelines.store import Store
from keras_attn.version import __version__


class PatchCache(Store):
    """A folder of boxes; its name is a digest of everything that decides them."""

    CONTENT, FORMAT = "localised boxes", "keras-attn patches"
    DESCRIPTION, MAKER, SHARD = "patches.json", "the next training", 2048

    def layout(self, count):
        return {
            "boxes": ("int32", (count, None, 4)),
            "scores": ("float32", (count, None)),
            "valid": ("bool", (count, None)),
            "branch": ("int32", (count,)),
            "label": ("int32", (count,)),
        }

    def read_if_whole(self, shard):
        """The arrays of a shard, or `None` if its file is missing or damaged."""
        try:
            return self.read_shard(shard)
        except ValueError:
            return None


def localized_boxes(
    localizer, select, images, labels, cache, batch_size=64, progress=None
):
    """The boxes of every image's patches, computed once and kept on disk.

    The folder of the cache is named by a digest of everything that decides the boxes,
    so that a changed model, weight, setting, image, label or version finds another
    folder. An interrupted computation resumes after its last whole file.

    Args:
        localizer: Keras model from raw images to the outputs that `select` takes. It
            runs in inference mode.
        select: Layer that chooses the patches, `LocalizePatches`.
        images: `(examples, height, width, 3)`, 8-bit, or `StreamedImages`.
        labels: `(examples,)` integers.
        cache: Folder for the results.
        batch_size: Images at a time; it does not change the result.
        progress: Called with (images done, images in all) while boxes are computed.

    Returns:
        Dict of NumPy arrays, one row per image: `boxes` (int32, `(examples, K, 4)`;
        convention: `(y0, x0, y1, x1)`, half-open pixel coordinates, -1 where absent),
        `scores`, `valid`, `branch` (index of the deciding branch) and `label` (the
        class that the localiser predicts).

    Raises:
        ValueError: If there is not one label for each image, or the cache cannot be
            written.
        CorruptImageError: If a streamed image cannot be decoded.
    """
    if len(images) != len(labels) or not len(labels):
        raise ValueError(
            "Expected one label for each image. "
            f"Received: {len(images)} images, {len(labels)} labels"
        )
    key = cache_key(localizer, select, images, labels)
    store = PatchCache(
        pathlib.Path(cache) / key, {"digest": key, "examples": len(labels)}
    )
    if not (store.path / store.DESCRIPTION).exists():
        # Earlier versions wrote none; the folder's name is enough to read theirs.
        store.write_description()
    model = keras.Model(localizer.input, select(localizer.output))
    parts = []
    for shard in store.shards():
        arrays = store.read_if_whole(shard)
        if arrays is None:
            chosen = slice(shard.start, shard.stop)
            batches = evaluation_batches(images[chosen], labels[chosen], batch_size)
            with clear_errors():
                found = model.predict(batches, verbose=0)
            arrays = {
                name: np.asarray(found[name], dtype)
                for name, (dtype, _) in store.layout(0).items()
            }
            store.write_shard(shard, arrays)
            if progress is not None:
                progress(shard.stop, len(labels))
        parts.append(arrays)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def cache_key(localizer, select, images, labels):
    """A digest of everything that decides what `localized_boxes` returns."""
    settings = {key: v for key, v in select.get_config().items() if key != "name"}
    described = [
        __version__,
        keras.__version__,
        keras.backend.backend(),
        localizer.to_json(),
        type(select).__name__,
        json.dumps(settings, sort_keys=True, default=str),
    ]
    weights = map(keras.ops.convert_to_numpy, (*localizer.weights, *select.weights))
    streamed = isinstance(images, StreamedImages)
    content = images.digest(content=True) if streamed else images
    return digest_of("\n".join(described), *weights, labels, content)[:32]


def patch_steps_per_epoch(boxes, batch_size, patches_per_image=4):
    """Number of batches that `patch_batches` gives in an epoch."""
    each = _images_per_batch(batch_size, patches_per_image)
    return sum(-(-len(members) // each) for _, members in by_size(boxes))


def patch_batches(
    images,
    labels,
    boxes,
    batch_size,
    seed,
    epochs,
    initial_epoch=0,
    patches_per_image=4,
    flip=True,
    part=WHOLE,
):
    """Batches of patches of one size each, in the epochs `[initial_epoch, epochs)`.

    An epoch shows every image that has patches: some of them, drawn anew in each
    epoch, and an image with fewer repeats them. Patches of an image come one after the
    other, with its label. The last batch of a size is filled up with images of that
    size that the epoch has shown already. Order, choice and mirroring depend on `(seed,
    epoch)` alone.

    Args:
        images: `(examples, height, width, 3)`, 8-bit, or `StreamedImages`.
        labels: `(examples,)` integers.
        boxes: `(examples, K, 4)`, as from `localized_boxes`.
        batch_size: Patches in a batch, a multiple of `patches_per_image`.
        seed: Seed of order, choice and mirroring.
        epochs: End of the epochs.
        initial_epoch: First epoch.
        patches_per_image: Patches of an image in an epoch.
        flip: Whether to mirror each patch with probability one half.
        part: See `keras_attn.pipelines.batches.build.training_batches`; it consists of
            all patches of some images.

    Returns:
        `tf.data.Dataset` of `(patches, labels)`, `(batch_size, rows, columns, 3)` and
        `(batch_size,)`, of `patch_steps_per_epoch` batches an epoch. Pixels outside the
        image are zero.

    Raises:
        ValueError: If the batch size does not divide, an image has patches of several
            sizes, or no image has a patch.
    """
    each = _images_per_batch(batch_size, patches_per_image)
    few = part.size(each, "batch_size / patches_per_image")
    groups = by_size(boxes)
    boxes = np.asarray(boxes, "int32")

    def plan(epoch):
        """Images, boxes, mirroring and patch size of every step, in order."""
        random = np.random.default_rng([seed, int(epoch)])
        chosen, sizes = [], []
        for size, members in groups:
            # Repeats from the start where the last batch is not full.
            steps = -(-len(members) // each)
            order = np.resize(random.permutation(members), (steps, each))
            chosen.append(order)
            sizes.append(np.tile(np.int32(size), (steps, 1)))
        steps = random.permutation(sum(map(len, chosen)))
        chosen = np.concatenate(chosen)[steps]
        picked = _pick(boxes[chosen], patches_per_image, random)
        mirrored = flip & (random.random(picked.shape[:-1]) < 0.5)
        own = chosen.astype("int64"), picked, mirrored
        own = [array[:, part.of(few)] for array in own]
        return *own, np.concatenate(sizes)[steps]

    @tf.autograph.experimental.do_not_convert
    def steps_of_epoch(epoch):
        types = (tf.int64, tf.int32, tf.bool, tf.int32)
        parts = tf.numpy_function(plan, [epoch], types, stateful=False)
        places = (few, patches_per_image)
        shapes = ((few,), (*places, 4), places, (2,))
        for part, shape in zip(parts, shapes, strict=True):
            part.set_shape((None, *shape))
        return tf.data.Dataset.from_tensor_slices(tuple(parts))

    steps = tf.data.Dataset.range(initial_epoch, epochs).flat_map(steps_of_epoch)
    return _cut_out(images, labels, steps, few, [size for size, _ in groups])


def best_patch_batches(images, labels, boxes, batch_size, part=WHOLE):
    """The first patch of every image that has one, to validate on; see `patch_batches`.

    The sizes come one after the other, the images of a size in their order; the last
    batch of a size may be smaller. A `part` has an equal share of each size's images.
    """
    groups = by_size(boxes)
    boxes = np.asarray(boxes, "int32")
    batches = None
    for size, members in groups:
        members = members[part.number :: part.count]
        first = boxes[members, :1]
        mirrored = np.zeros(first.shape[:-1], bool)
        sizes = np.tile(np.int32(size), (len(members), 1))
        steps = tf.data.Dataset.from_tensor_slices((members, first, mirrored, sizes))
        steps = steps.batch(batch_size).map(lambda *step: (*step[:3], step[3][0]))
        # Streamed images come in batches of which the last alone may be smaller.
        added = _cut_out(images, labels, steps, batch_size, [s for s, _ in groups])
        batches = added if batches is None else batches.concatenate(added)
    return batches


def by_size(boxes):
    """The images with patches of each size: `((rows, columns), indices)`, sizes rising.

    Boxes are `(examples, K, 4)` integers, absent ones last in their row.
    """
    boxes = np.asarray(boxes)
    if boxes.ndim != 3 or boxes.shape[-1] != 4:
        raise ValueError(
            f"Expected boxes of shape (examples, K, 4). Received: {boxes.shape}"
        )
    sizes = boxes[..., 2:] - boxes[..., :2]
    present = (sizes > 0).all(axis=-1)
    wrong = (present & (sizes != sizes[:, :1]).any(axis=-1)).any(axis=-1)
    if wrong.any():
        index = int(wrong.argmax())
        raise ValueError(
            "Expected patches of one size in an image, absent ones last. "
            f"Received: {boxes[index].tolist()} for image {index}"
        )
    members = np.flatnonzero(present[:, 0])
    if not len(members):
        raise ValueError(f"Expected patches. Received: {len(boxes)} images without")
    found, group = np.unique(sizes[members, 0], axis=0, return_inverse=True)
    group = group.reshape(-1)
    return [(tuple(size), members[group == i]) for i, size in enumerate(found.tolist())]


def _pick(boxes, count, random):
    """`count` of the present boxes of each image, all before any again."""
    present = (boxes[..., 2:] > boxes[..., :2]).all(axis=-1)
    keys = np.where(present, random.random(present.shape), 2.0)
    order = np.argsort(keys, axis=-1, kind="stable")
    turns = np.arange(count) % present.sum(axis=-1, keepdims=True)
    places = np.take_along_axis(order, turns, axis=-1)
    return np.take_along_axis(boxes, places[..., None], axis=-2)


def _images_per_batch(batch_size, patches_per_image):
    if patches_per_image < 1 or batch_size < 1 or batch_size % patches_per_image:
        raise ValueError(
            "Expected a batch size that is a multiple of the patches of an image. "
            f"Received: batch_size={batch_size}, patches_per_image={patches_per_image}"
        )
    return batch_size // patches_per_image


def _cut_out(images, labels, steps, images_per_batch, sizes):
    """`(patches, labels)` of the steps `(indices, boxes, mirrored, size)`."""
    with tf.device("CPU:0"):
        labels = tf.convert_to_tensor(labels)
    if isinstance(images, StreamedImages):
        indices = steps.map(lambda indices, *rest: indices)
        whole = images.batches(indices, images_per_batch)
    else:
        with tf.device("CPU:0"):
            images = tf.convert_to_tensor(images)
        whole = steps.map(lambda indices, *rest: tf.gather(images, indices))
    side = sizes[0] if len(sizes) == 1 else (None, None)

    @tf.autograph.experimental.do_not_convert
    def cut(batch, step):
        indices, boxes, mirrored, size = step
        patches = crop(batch, boxes, size)
        mirrored = tf.reshape(mirrored, (-1, 1, 1, 1))
        patches = tf.where(mirrored, tf.reverse(patches, axis=[2]), patches)
        patches = tf.ensure_shape(patches, (None, *side, 3))
        return patches, tf.repeat(tf.gather(labels, indices), tf.shape(boxes)[1])

    # The steps come again in the same order, since their seed decides it.
    dataset = tf.data.Dataset.zip(whole, steps)
    dataset = dataset.map(cut, num_parallel_calls=PREFETCH, deterministic=True)
    return finish(dataset, PREFETCH)


def crop(images, boxes, size):
    """Pixels of boxes of one size; those outside the image are zero.

    `keras_attn.ops.crop_patches` does this inside models. This one runs in `tf.data` on
    every backend and takes a size that is known only there.

    Args:
        images: `(batch, height, width, channels)`.
        boxes: `(batch, K, 4)` int32. Convention: `(y0, x0, y1, x1)`, half-open pixel
            coordinates.
        size: int32 tensor `(2,)`, rows and columns.

    Returns:
        Tensor `(batch * K, rows, columns, channels)`.
    """
    shape = tf.shape(images)
    corners = tf.reshape(boxes, (-1, 4))[:, :2, None]
    image = tf.repeat(tf.range(shape[0]), tf.shape(boxes)[1])[:, None, None]
    rows = (corners[:, 0] + tf.range(size[0]))[:, :, None]
    columns = (corners[:, 1] + tf.range(size[1]))[:, None, :]
    inside = (rows >= 0) & (rows < shape[1]) & (columns >= 0) & (columns < shape[2])
    rows = tf.clip_by_value(rows, 0, shape[1] - 1)
    columns = tf.clip_by_value(columns, 0, shape[2] - 1)
    pixels = tf.reshape(images, (-1, images.shape[-1]))
    patches = tf.gather(pixels, (image * shape[1] + rows) * shape[2] + columns)
    return tf.where(inside[..., None], patches, tf.zeros((), images.dtype))
