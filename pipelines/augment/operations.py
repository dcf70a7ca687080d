"""Stateless augmentation: a batch is a function of its seed and nothing else.

Why not Keras's own random layers: see docs/augmentation.md.
"""

import dataclasses
import difflib
import math

import tensorflow as tf

from keras_attn.pipelines.augment.erasing import RandomErasing
from keras_attn.pipelines.augment.geometry import RandomAffine, affine
from keras_attn.preprocessing import IMAGENET_MEAN, IMAGENET_STD

PADDING = 4
CROP_ATTEMPTS = 10
CROP_ASPECT = (3 / 4, 4 / 3)
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
    offsets = _translations(seed, tf.shape(images)[0], padding)
    return translate(images, offsets, padding)


def _translations(seed, count, padding=PADDING):
    offsets = tf.random.stateless_uniform(
        (2, count), seed, -padding, padding + 1, tf.int32
    )
    return tf.transpose(offsets)


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
    mirrored = _mirrored(seed, tf.shape(images)[0])[:, None, None, None]
    return tf.where(mirrored, tf.reverse(images, axis=[2]), images)


def _mirrored(seed, count):
    return tf.random.stateless_uniform((count,), seed) < 0.5


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
    """A box of random area and shape of each image, resized to the image's size.

    The usual training crop of ImageNet (Szegedy et al. 2015): the share of the area
    is uniform from `smallest_area` to 1, the logarithm of width / height uniform
    between those of 3/4 and 4/3, the place uniform. Of ten such boxes the first that
    fits into the image is taken; if none does, the largest central one whose shape is
    in that range.

    An operation on batches like the others, and in two steps, `draws` and `of_image`,
    for images of different sizes.

    Args:
        smallest_area: Smallest share of the image's area that a box has.
    """

    smallest_area: float

    def __call__(self, images, seed):
        size = tuple(images.shape[1:3])
        draws = self.draws(seed, tf.shape(images)[0])
        cropped = tf.map_fn(
            lambda pair: self.of_image(*pair, size),
            (images, draws),
            fn_output_signature=tf.TensorSpec((*size, images.shape[-1]), images.dtype),
        )
        return tf.ensure_shape(cropped, images.shape)

    def draws(self, seed, count):
        """What the boxes of `count` images are made of, `(count, attempts, 4)`."""
        return tf.random.stateless_uniform((count, CROP_ATTEMPTS, 4), seed)

    def of_image(self, image, draws, size):
        """Crops one image by its draws and resizes the box to `size`.

        Bilinear with antialiasing, as images are fitted for evaluation.
        """
        shape = tf.shape(image)
        y0, x0, y1, x1 = tf.unstack(self.box(draws, shape[0], shape[1]))
        box = tf.cast(image[y0:y1, x0:x1], tf.float32)
        resized = tf.image.resize(box, size, antialias=True)
        return tf.cast(tf.round(resized), image.dtype)

    def box(self, draws, height, width):
        """The box `(y0, x0, y1, x1)` that draws give in an image, half-open pixels.

        Args:
            draws: `(attempts, 4)`, uniform in [0, 1): area, shape, row, column.
            height, width: Size of the image.
        """
        sides = tf.cast(tf.stack([height, width]), tf.float32)
        area = self.smallest_area + (1 - self.smallest_area) * draws[:, 0]
        area *= sides[0] * sides[1]
        low, high = map(math.log, CROP_ASPECT)
        aspect = tf.exp(low + (high - low) * draws[:, 1])
        boxes = tf.round(tf.sqrt(tf.stack([area / aspect, area * aspect], axis=-1)))
        fits = tf.reduce_all((boxes >= 1) & (boxes <= sides), axis=-1)
        first = tf.argmax(fits)
        space = sides - boxes[first]
        corner = tf.minimum(tf.floor(draws[first, 2:] * (space + 1)), space)
        central = self._central(sides)
        found = tf.reduce_any(fits)
        box = tf.where(found, boxes[first], central)
        corner = tf.where(found, corner, tf.floor((sides - central) / 2))
        return tf.cast(tf.concat([corner, corner + box], axis=0), tf.int32)

    def transforms(self, draws, image_size, size):
        """What the crops do to places, `(count, 3, 3)`; see
        `keras_attn.pipelines.augment.geometry`.

        Args:
            draws: `(count, attempts, 4)`.
            image_size: Height and width of the images.
            size: Height and width of the results.
        """
        boxes = tf.map_fn(
            lambda drawn: self.box(drawn, *image_size),
            draws,
            fn_output_signature=tf.TensorSpec((4,), tf.int32),
        )
        boxes = tf.cast(boxes, tf.float32)
        scales = (boxes[:, 2:] - boxes[:, :2]) / tf.cast(size, tf.float32)
        return affine(tf.linalg.diag(scales), boxes[:, :2])

    def _central(self, sides):
        """Height and width of the largest box whose shape is in the range."""
        narrowest, widest = CROP_ASPECT
        height = tf.minimum(sides[0], tf.round(sides[1] / narrowest))
        width = tf.minimum(sides[1], tf.round(sides[0] * widest))
        return tf.stack([height, width])


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
    # That of the attention-masked residual networks.
    "translate_flip_erase": (random_translate, random_flip, RandomErasing()),
    "flip": (random_flip,),
    # The usual one of ImageNet, and a milder one for small data sets.
    "random_resized_crop_flip": (RandomResizedCrop(0.08), random_flip),
    "mild_resized_crop_flip": (RandomResizedCrop(0.5), random_flip),
    # Volumetric Transformer Networks, section 3.5: 448 of 512 pixels. The paper leaves
    # the angle open.
    "rotate_crop_flip": (RandomAffine(15.0, 448 / 512, flip=True),),
    "none": (),
}
# Operations that take an image of any size, see `resized_crop`.
CROPS = (RandomResizedCrop, RandomAffine)


def augment(
    images,
    seed,
    name="translate_flip",
    crop=True,
    normalization=(IMAGENET_MEAN, IMAGENET_STD),
):
    """Applies the augmentation of that name to a batch.

    Args:
        images: `(batch, height, width, channels)`.
        seed: Integer tensor of shape `(2,)`; the same seed gives the same batch.
        name: One of `AUGMENTATIONS`.
        crop: Whether to apply the `resized_crop` that the augmentation begins with.
        normalization: Mean and standard deviation of every channel, on the scale 0..1,
            for noise in the units of what the network sees; see `RandomErasing`.

    Raises:
        ValueError: If there is no augmentation of that name.
        ImportError: If it needs KerasCV, which is not installed.
    """
    check_augmentation(name)
    for number, operation in enumerate(AUGMENTATIONS[name]):
        drawn = operation_seed(seed, number)
        if isinstance(operation, RandomErasing):
            images = operation(images, drawn, normalization)
        elif crop or not isinstance(operation, CROPS):
            images = operation(images, drawn)
    return images


def operation_seed(seed, number):
    """The seed of an augmentation's operation, given the one of the batch."""
    return tf.random.fold_in(seed, number)


def resized_crop(name):
    """The operation, one of `CROPS`, that an augmentation begins with, or `None`.

    Files are cropped before they are resized, so that the crop has all their detail.
    Its seed is `operation_seed(seed, 0)`.
    """
    check_augmentation(name)
    first = AUGMENTATIONS[name][:1]
    return first[0] if first and isinstance(first[0], CROPS) else None


def sampled_transforms(name, seed, count, size, image_size=None):
    """The transforms that `augment` applies to the images of a batch.

    For what has to stay in place on the images: `keras_attn.pipelines.augment.geometry`
    applies them to boxes, points, masks and maps.

    Args:
        name: One of `AUGMENTATIONS`.
        seed: The same as for `augment`.
        count: Images in the batch.
        size: Height and width of the augmented images.
        image_size: Height and width before; `size` by default. Only an augmentation
            that begins with a `resized_crop` changes it.

    Returns:
        float32 tensor `(count, 3, 3)`; see `keras_attn.pipelines.augment.geometry`.
    """
    check_augmentation(name)
    total = tf.eye(3, batch_shape=(count,))
    before = size if image_size is None else image_size
    for number, operation in enumerate(AUGMENTATIONS[name]):
        drawn = operation_seed(seed, number)
        if isinstance(operation, CROPS):
            draws = operation.draws(drawn, count)
            total @= operation.transforms(draws, before, size)
        elif operation in PLACES:
            total @= affine(*PLACES[operation](drawn, count, size))
        before = size
    return total


def _places_of_translate(seed, count, size):
    del size
    offsets = tf.cast(_translations(seed, count), tf.float32)
    return tf.eye(2, batch_shape=(count,)), offsets


def _places_of_flip(seed, count, size):
    mirrored = _mirrored(seed, count)
    columns = tf.stack([tf.ones(count), tf.where(mirrored, -1.0, 1.0)], axis=-1)
    offsets = tf.where(mirrored, float(size[1]), 0.0)
    return tf.linalg.diag(columns), tf.stack([tf.zeros(count), offsets], axis=-1)


# Linear parts and offsets of operations that move what is in the image.
PLACES = {random_translate: _places_of_translate, random_flip: _places_of_flip}


def check_augmentation(name):
    if name not in AUGMENTATIONS:
        nearest = difflib.get_close_matches(str(name), AUGMENTATIONS, 1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(
            f"Expected the augmentation to be one of {tuple(AUGMENTATIONS)}. "
            f"Received: {name!r}.{hint}"
        )
