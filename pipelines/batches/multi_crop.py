"""Multi-crop: several views of every image, for training without labels.

Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", section 3.2
and appendix: two global views of large parts of the image and local ones of small
parts, each with colours of its own. A batch is a function of its seed.
"""

import dataclasses
import functools

import tensorflow as tf

from keras_attn.pipelines.augment.crops import RandomResizedCrop
from keras_attn.pipelines.augment.operation import WHOLE
from keras_attn.pipelines.augment.operations import Flip
from keras_attn.pipelines.batches.build import finish, shuffled_steps
from keras_attn.pipelines.images.streaming import PREFETCH, StreamedImages

LUMINANCE = (0.299, 0.587, 0.114)
# Reach of the blur's kernel, in its deviations.
BLUR_REACH = 3


@dataclasses.dataclass(frozen=True)
class Crop:
    """Settings of one kind of crop.

    Args:
        size: Side in pixels.
        area: Smallest and greatest share of the image's area.
        blur: Probability of a Gaussian blur.
        solarize: Probability that pixels from 128 on are inverted.
    """

    size: int
    area: tuple[float, float]
    blur: float
    solarize: float = 0.0

    def __post_init__(self):
        low, high = self.area
        if self.size < 1 or not 0 < low < high <= 1:
            raise ValueError(
                "Expected a size of at least 1 and shares of the area in (0, 1], the "
                f"smaller first. Received: size={self.size}, area={self.area}"
            )


@dataclasses.dataclass(frozen=True)
class MultiCrop:
    """The views of an image; published values are the defaults.

    Args:
        global_size, local_size: Sides of the views in pixels.
        local_views: Number of local views; may be 0.
        global_area, local_area: Shares of the image's area that views cover.
        blur_sigma: Smallest and greatest deviation of the blur, in pixels. The
            published ones are for views of 224 pixels, see `for_size`.
        jitter: Probability of a change of the colours.
        grey: Probability of grey views.
    """

    global_size: int = 224
    local_size: int = 96
    local_views: int = 8
    global_area: tuple[float, float] = (0.4, 1.0)
    local_area: tuple[float, float] = (0.05, 0.4)
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    jitter: float = 0.8
    grey: float = 0.2

    def views(self):
        """`Crop` of each view, the two global ones first."""
        return (
            Crop(self.global_size, self.global_area, blur=1.0),
            Crop(self.global_size, self.global_area, blur=0.1, solarize=0.2),
            *[Crop(self.local_size, self.local_area, blur=0.5)] * self.local_views,
        )

    @tf.autograph.experimental.do_not_convert
    def __call__(self, images, seed, part=WHOLE):
        """Views of 8-bit `(batch, height, width, 3)`; the same ones by the same seed.

        A dict of 8-bit `"global_views"`, `(batch, 2, size, size, 3)`, and, if there are
        any, `"local_views"`, `(batch, local_views, size, size, 3)`. The seed is `(2,)`
        integers; `part` is the `Part` of a batch that the images are.
        """
        first, second, *local = self.views()
        pair = [
            self.view(images, tf.random.fold_in(seed, number), view, part)
            for number, view in enumerate((first, second))
        ]
        found = {"global_views": tf.stack(pair, axis=1)}
        if local:
            # All of them in one batch.
            repeated = tf.repeat(images, len(local), axis=0)
            made = self.view(repeated, tf.random.fold_in(seed, 2), local[0], part)
            found["local_views"] = tf.reshape(made, (-1, len(local), *made.shape[1:]))
        return found

    def view(self, images, seed, view, part=WHOLE):
        """One `Crop` of each image: crop, mirror, colours, blur, solarisation."""
        seeds = tf.unstack(tf.random.split(seed, 6))
        images = crop_and_resize(images, seeds[0], view.size, view.area, part)
        images = Flip()(images, seeds[1], part=part)
        images = sometimes(color_jitter, self.jitter, images, seeds[2], part)
        images = sometimes(to_grey, self.grey, images, seeds[3], part)
        if view.blur:
            blur = GaussianBlur(*self.blur_sigma)
            images = sometimes(blur, view.blur, images, seeds[4], part)
        if view.solarize:
            images = sometimes(solarize, view.solarize, images, seeds[5], part)
        return tf.cast(tf.round(tf.clip_by_value(images, 0, 255)), tf.uint8)

    @classmethod
    def for_size(cls, global_size, local_size, **changes):
        """For small images: the blur is as wide relative to the global views."""
        low, high = (sigma * global_size / 224 for sigma in cls.blur_sigma)
        values = {
            "global_size": global_size,
            "local_size": local_size,
            "blur_sigma": (low, high),
        }
        return cls(**{**values, **changes})


def multi_crop_batches(
    images, batch_size, seed, epochs, initial_epoch=0, multi_crop=None, part=WHOLE
):
    """Views of shuffled images, of the epochs `[initial_epoch, epochs)`.

    Order and views depend on `(seed, epoch, step)` alone, as in
    `keras_attn.pipelines.batches.build.training_batches`.

    Args:
        images: `(examples, height, width, 3)`, 8-bit; kept in memory once, or
            `StreamedImages`, whose views are cut from images of their size.
        batch_size: Images in a batch; an incomplete last batch is left out.
        seed: Seed of the order and of the views.
        epochs: End of the epochs.
        initial_epoch: First epoch.
        multi_crop: `MultiCrop`; the published one by default.
        part: See `keras_attn.pipelines.batches.build.training_batches`.

    Returns:
        `tf.data.Dataset` of dicts of views, see `MultiCrop`.
    """
    multi_crop = multi_crop or MultiCrop()

    @tf.autograph.experimental.do_not_convert
    def load(indices, step_seed):
        return made(tf.gather(images, indices), step_seed)

    made = functools.partial(multi_crop, part=part)
    every_step = shuffled_steps(
        len(images), batch_size, seed, epochs, initial_epoch, part
    )
    if isinstance(images, StreamedImages):
        indices = every_step.map(lambda chosen, _: chosen)
        batches = images.batches(indices, part.size(batch_size))
        # The steps come again in the same order, since their seed decides it.
        every_step = tf.data.Dataset.zip(batches, every_step)
        every_step = every_step.map(lambda batch, step: (batch, step[1]))
        load, ahead = made, PREFETCH
    else:
        ahead = tf.data.AUTOTUNE
        with tf.device("CPU:0"):
            images = tf.convert_to_tensor(images)
    return finish(
        every_step.map(load, num_parallel_calls=ahead, deterministic=True), ahead
    )


# ---- the operations, on float32 images in [0, 255] ---------------------------------


def crop_and_resize(images, seed, size, area, part=WHOLE):
    """Boxes of random area and shape, resized by bicubic interpolation.

    Drawn by `keras_attn.pipelines.augment.crops.RandomResizedCrop`, with the smallest
    and the greatest share of the image's area. A box is reduced with antialiasing, as
    Pillow does it, to float32 `(batch, size, size, 3)` within the range of 8 bits.
    """
    crop = RandomResizedCrop(*area)
    drawn = crop.part_drawn(seed, tf.shape(images)[0], part)
    boxes = crop.boxes(drawn, images.shape[1:3])
    return resize_boxes(images, boxes, (size, size))


def resize_boxes(images, boxes, size):
    """Bicubic interpolation of a box of each image, a matrix product for each axis.

    Nothing outside the boxes `(batch, 4)`, `(y0, x0, y1, x1)`, is seen. The result is
    float32, `(batch, *size, channels)`, clipped to [0, 255].
    """
    boxes = tf.cast(boxes, tf.float32)
    rows = _bicubic_weights(boxes[:, 0], boxes[:, 2], images.shape[1], size[0])
    columns = _bicubic_weights(boxes[:, 1], boxes[:, 3], images.shape[2], size[1])
    images = tf.cast(images, tf.float32)
    images = tf.einsum("bih,bhwc->biwc", rows, images)
    return tf.clip_by_value(tf.einsum("bjw,biwc->bijc", columns, images), 0, 255)


def _bicubic_weights(begin, end, length, size):
    """Weights of inputs in outputs, `(batch, size, length)`."""
    begin, end = begin[:, None, None], end[:, None, None]
    step = (end - begin) / size
    centre = begin + (tf.range(size, dtype=tf.float32)[:, None] + 0.5) * step
    place = tf.range(length, dtype=tf.float32) + 0.5
    # A wider kernel where the box is reduced: antialiasing.
    x = tf.abs(place - centre) / tf.maximum(step, 1.0)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = tf.where(x < 1, near, tf.where(x < 2, far, 0.0))
    weights = tf.where((place > begin) & (place < end), weights, 0.0)
    return weights / tf.reduce_sum(weights, axis=-1, keepdims=True)


def sometimes(operation, probability, images, seed, part=WHOLE):
    """Applies an operation `(images, seed, part)` to each image with a probability."""
    choice, own = tf.unstack(tf.random.split(seed, 2))
    chosen = part.uniform((tf.shape(images)[0],), choice) < probability
    return tf.where(chosen[:, None, None, None], operation(images, own, part), images)


def color_jitter(
    images, seed, part=WHOLE, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1
):
    """Changes brightness, contrast, saturation and hue, in random order.

    The first three are factors within `1 - value` and `1 + value`, the hue is turned
    by up to that share of the circle. One order for a batch, factors for each image.
    """
    order_seed, *seeds = tf.unstack(tf.random.split(seed, 5))
    ranges = (brightness, contrast, saturation)
    count = tf.shape(images)[0]

    def draw(seed, value, middle):
        shape = (count, 1, 1, 1)
        return part.uniform(shape, seed, middle - value, middle + value)

    factors = [draw(s, v, 1.0) for s, v in zip(seeds[:3], ranges, strict=True)]
    turn = draw(seeds[3], hue, 0.0)[:, :, :, 0]
    operations = (
        lambda x: x * factors[0],
        lambda x: _blend(
            tf.reduce_mean(_luminance(x), (1, 2), keepdims=True), x, factors[1]
        ),
        lambda x: _blend(_luminance(x), x, factors[2]),
        lambda x: _turn_hue(x, turn),
    )
    order = tf.random.experimental.stateless_shuffle(tf.range(4), order_seed)
    for place in range(4):
        images = tf.switch_case(
            order[place],
            [
                lambda operation=operation, x=images: tf.clip_by_value(
                    operation(x), 0, 255
                )
                for operation in operations
            ],
        )
    return images


def _blend(other, images, factor):
    return other + factor * (images - other)


def _luminance(images):
    return tf.reduce_sum(images * tf.constant(LUMINANCE), axis=-1, keepdims=True)


def _turn_hue(images, turn):
    hue, saturation, value = tf.unstack(tf.image.rgb_to_hsv(images / 255), axis=-1)
    hue = tf.math.floormod(hue + turn, 1.0)
    return 255 * tf.image.hsv_to_rgb(tf.stack([hue, saturation, value], axis=-1))


def to_grey(images, seed, part=WHOLE):
    """The luminance in all channels."""
    del seed, part
    return tf.broadcast_to(_luminance(images), tf.shape(images))


def solarize(images, seed, part=WHOLE):
    """Inverts pixels from 128 on."""
    del seed, part
    return tf.where(tf.round(images) >= 128, 255 - images, images)


@dataclasses.dataclass(frozen=True)
class GaussianBlur:
    """Gaussian blur of a deviation of each image's own; edges are reflected.

    Args:
        low, high: Range of the deviation in pixels.
    """

    low: float
    high: float

    def __call__(self, images, seed, part=WHOLE):
        count, (height, width) = tf.shape(images)[0], images.shape[1:3]
        deviation = part.uniform((count, 1), seed, self.low, self.high)
        reach = int(BLUR_REACH * self.high) + 1
        # Reflection leaves out the edge itself.
        reach = min(reach, height - 1, width - 1)
        offsets = tf.range(-reach, reach + 1, dtype=tf.float32)
        taps = tf.nn.softmax(-((offsets / deviation) ** 2) / 2, axis=-1)
        for axis in (1, 2):
            images = _convolved(images, taps, axis, reach)
        return images


def _convolved(images, taps, axis, reach):
    """Each image convolved with taps of its own, `(batch, 2 reach + 1)`."""
    size = images.shape[axis]
    edges = [[0, 0]] * 4
    edges[axis] = [reach, reach]
    padded = tf.pad(images, edges, "REFLECT")
    total = tf.zeros_like(images)
    for tap in range(2 * reach + 1):
        begin, length = [0] * 4, [-1] * 4
        begin[axis], length[axis] = tap, size
        weight = taps[:, tap, None, None, None]
        total += weight * tf.slice(padded, begin, length)
    return total
