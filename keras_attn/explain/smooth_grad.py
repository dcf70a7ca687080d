"""SmoothGrad: the slope at the pixels, averaged over noise."""

from collections.abc import Callable
from typing import Literal

import keras
import numpy as np
from keras import ops

from keras_attn._checks import number_in, positive_integer
from keras_attn.explain.feature_maps import DataFormat
from keras_attn.explain.passes import summed_slopes
from keras_attn.explain.pixel_maps import pixel_split
from keras_attn.explain.targets import Target


def smooth_grad(
    model: keras.Model,
    images,
    labels=None,
    samples: int = 16,
    noise: float = 0.15,
    raw: bool = False,
    seed: int = 0,
    output: str | int | None = None,
    image_input: str | int | None = None,
    data_format: DataFormat | None = None,
    target: Target | None = None,
    against: Literal["nearest"] | int | list[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
):
    """Mean slope of a class's score at the pixels of images with noise.

    Smilkov et al., "SmoothGrad: removing noise by adding noise", section 3:

    - `mean over n of dF(x + e_n) / dx`, with `e_n` from a normal distribution,

    of which the absolute values are summed over the channels.

    Args:
        model, images, labels, output, image_input, data_format, target, against: See
            `grad_cam`; the model takes images in floating point.
        samples: Number of noisy copies, each a pass of the model forward and backward;
            1 without noise is the plain slope.
        noise: Standard deviation, as a share of the range of each image's values.
        raw: The values themselves, not scaled.
        seed: Seed of the noise.
        progress: Function of the images scored so far and of their number, called
            after every pass.

    Returns:
        float32 tensor, see `grad_cam`.

    Raises:
        ValueError: See `grad_cam`, or if `samples` or `noise` is out of range.

    Example:

    >>> model = keras.Sequential([keras.Input((2, 3, 1)), keras.layers.Flatten()])
    >>> image = np.arange(6.0).reshape(1, 2, 3, 1)
    >>> smooth_grad(model, image, [4], raw=True)[0, 1]
    array([0., 1., 0.], dtype=float32)

    Reference: [smilkov2017] arXiv:1706.03825.
    """
    samples = positive_integer("samples", samples)
    number_in("noise", noise, "[0, 1]")
    given = labels, raw, output, image_input, data_format, target, against
    asked, parts, objective = pixel_split(model, images, *given)
    pixels = ops.convert_to_numpy(ops.cast(parts.features, "float32"))
    spread = noise * np.ptp(pixels, axis=(1, 2, 3), keepdims=True)
    random = np.random.default_rng(seed)

    def versions(first, end):
        return pixels + spread * random.standard_normal((end - first, *pixels.shape))

    sums = summed_slopes(asked, parts, objective, versions, samples, progress)
    slopes = [parts.to_map(total / samples) for total in sums]
    maps = [ops.sum(ops.abs(slope), axis=-1) for slope in slopes]
    return asked.finish(ops.stack(maps, axis=-1), objective, parts.images)
