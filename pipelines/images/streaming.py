"""Images that stay in their files until a batch needs them.

For data sets that are too large for memory. A run sees the same images as from memory,
but for one thing: an augmentation that begins with a crop or resize takes the original
image, not the one already resized.
"""

import contextlib
import os
import pathlib
import re
import sys

import numpy as np
import tensorflow as tf

from keras_attn.pipelines.augment.operation import WHOLE
from keras_attn.pipelines.augment.operations import operation_seed
from keras_attn.pipelines.files import digest_of
from keras_attn.pipelines.images.decoding import (
    CorruptImageError,
    decode_image,
    fit_image,
    unreadable,
)
from keras_attn.pipelines.images.files import MANY
from keras_attn.pipelines.progress import counted
from keras_attn.preprocessing import ImagePreprocessing

# Decoded data sets up to this size are held in memory.
IN_MEMORY_GIB = 4.0
# Images decoded at the same time, and batches made ahead: memory grows with these, not
# with the size of the data.
WORKERS = os.cpu_count() or 1
# Images whose files are requested from another machine at the same time.
REQUESTS = 32
PREFETCH = 2


def load_images(source, spec, in_memory_gib=IN_MEMORY_GIB):
    """The images of a source in the size of a spec, in memory or streamed.

    Args:
        source: A `Source`.
        spec: An `ImageSpec`.
        in_memory_gib: Limit in GiB up to which decoded images are held in memory.

    Returns:
        `(source, images)`: the source without the files that `on_corrupt="skip"` has
        left out, its boxes in pixels of the images, and its `(N, height, width, 3)`
        images, a NumPy array or `StreamedImages`. To find what to leave out of
        streamed images every file is decoded once; with `on_corrupt="error"` such a
        file is an error when a batch needs it, see `clear_errors`.
    """
    size = len(source) * spec.height * spec.width * 3
    in_memory = source.images is not None or size <= in_memory_gib * 2**30
    if in_memory:
        source = source.decoded(spec, counted("Decoded", MANY))
    elif source.on_corrupt == "skip":
        source = source.readable()
    if source.left_out:
        print(f"Left out: {source.left_out}", file=sys.stderr)
    if in_memory:
        return source, source.images
    return source.with_boxes_in_frame(spec), StreamedImages(source, spec)


class StreamedImages:
    """Images of a `Source` with files, indexed like an array, decoded on demand.

    A slice or an array of indices gives another `StreamedImages`, and nothing is read;
    one index, or `np.asarray`, gives pixels.

    Args:
        source: `Source` whose images are in files.
        spec: `ImageSpec`, the size of the images.
        indices: Which images of the source, in which order; all by default.
    """

    dtype = np.dtype("uint8")
    ndim = 4

    def __init__(self, source, spec, indices=None):
        self.source = source
        self.spec = spec
        self.indices = np.arange(len(source)) if indices is None else indices

    @property
    def shape(self):
        return (len(self.indices), self.spec.height, self.spec.width, 3)

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, key):
        chosen = self.indices[key]
        if np.ndim(chosen):
            return StreamedImages(self.source, self.spec, chosen)
        return np.asarray(self[[key]])[0]

    def __array__(self, dtype=None, copy=None):
        images = np.empty(self.shape, self.dtype)
        start = 0
        with clear_errors():
            for batch in self.batches(tf.data.Dataset.range(len(self)).batch(64), 64):
                images[start : start + len(batch)] = batch
                start += len(batch)
        return images if dtype is None else images.astype(dtype)

    def batches(self, indices, batch_size):
        """Batches of images.

        Args:
            indices: `tf.data.Dataset` of integers `(batch_size,)`; the last batch may
                have fewer.
            batch_size: Images in a batch.

        Returns:
            `tf.data.Dataset` of `(batch_size, height, width, 3)`, 8-bit.
        """
        images = self._decoded(indices.map(lambda chosen: (chosen,))).batch(batch_size)
        number = indices.cardinality()
        if number == tf.data.UNKNOWN_CARDINALITY:
            return images
        # Keras warns when a data set of unknown length ends.
        return images.apply(tf.data.experimental.assert_cardinality(number))

    def augmented_batches(self, steps, batch_size, augment, normalization, part=WHOLE):
        """Batches of augmented images.

        Args:
            steps: `tf.data.Dataset` of `(indices, seed)` of the batches.
            batch_size: Images in a batch.
            augment: `keras_attn.pipelines.augment.operations.Augmentation`.
            normalization: `Normalization`, or `ImageSpec`, of the network.
            part: `Part` of a batch that these are.

        Returns:
            `tf.data.Dataset` of `(images, indices)`.
        """
        crop = augment.file_operation

        @tf.autograph.experimental.do_not_convert
        def examples(indices, seed):
            if crop is None:
                return (indices,)
            own = operation_seed(seed, 0)
            return indices, crop.part_drawn(own, batch_size, part)

        @tf.autograph.experimental.do_not_convert
        def finish(images, step):
            indices, seed = step
            images = tf.ensure_shape(images, (batch_size, None, None, 3))
            first = 0 if crop is None else 1
            images = augment(images, seed, normalization, first, part)
            return tf.ensure_shape(images, (batch_size, *self.shape[1:])), indices

        images = self._decoded(steps.map(examples), crop).batch(batch_size)
        # The steps come again in the same order, since their seed decides it.
        return tf.data.Dataset.zip(images, steps).map(
            finish, num_parallel_calls=PREFETCH, deterministic=True
        )

    def _decoded(self, examples, crop=None):
        """Single images for batches of `(indices,)` or `(indices, draws)`."""
        size = self.shape[1:3]
        fit = ImagePreprocessing(self.spec).fit_size
        result = size if crop is None else crop.result_size(size)

        @tf.autograph.experimental.do_not_convert
        def load(index, draws=None):
            # Not stateful: else only one at a time would run in deterministic mode.
            image = tf.numpy_function(self._decode, [index], tf.uint8, stateful=False)
            image.set_shape((None, None, 3))
            if crop is None:
                return fit_image(image, size, fit)
            return tf.ensure_shape(crop.of_image(image, draws, result), (*result, 3))

        remote = self.source.remote
        images = examples.unbatch().map(
            load, num_parallel_calls=REQUESTS if remote else WORKERS, deterministic=True
        )
        if remote:
            # TensorFlow's threads are as many as processors: too few that wait.
            options = tf.data.Options()
            options.threading.private_threadpool_size = REQUESTS
            images = images.with_options(options)
        return images

    def _decode(self, index):
        index = self.indices[index]
        where = self.source.where(index)
        try:
            return decode_image(self.source.read(index), where, self.source.banner)
        except OSError as error:
            raise unreadable(where, error) from error

    def digest(self, content=False):
        """A text that differs between different images.

        Args:
            content: `False`: names and sizes of the files decide, the same on another
                machine with the same data; `True`: also marks of a changed content,
                for files in a folder the time of their last change.
        """
        described = [repr(self.spec_of_pixels())]
        if content:
            # Caches of earlier versions are of images as they are stored.
            described.append("turned by EXIF orientation")
        for index in self.indices:
            name = _class_and_name(self.source, index)
            size, version = self.source.stamp(index)
            described.append(f"{name}\n{size}\n{version if content else ''}\n")
        return digest_of(*described)

    def spec_of_pixels(self):
        """Values of the spec and the source that decide the pixels."""
        spec = self.spec
        of_spec = spec.height, spec.width, spec.interpolation, spec.crop_fraction
        return (*of_spec, self.source.banner) if self.source.banner else of_spec


def _class_and_name(source, index):
    """The last two parts of a file's name, the same on another machine."""
    if source.files is None:
        return source.where(index)
    file = source.files[index]
    parts = pathlib.PurePath(file if isinstance(file, str) else file[1]).parts
    return "/".join(parts[-2:])


@contextlib.contextmanager
def clear_errors():
    """Context in which a file that cannot be decoded gives its `CorruptImageError`.

    TensorFlow wraps what happens inside a data set in an error of its own, many lines
    long.
    """
    try:
        yield
    except tf.errors.OpError as error:
        found = re.search(rf"{CorruptImageError.__name__}: (.+?): (.+)", error.message)
        if found is None:
            raise
        raise CorruptImageError(*found.groups()) from None
