"""Integrated gradients: the score's rise from a baseline, shared out to the pixels."""

from collections.abc import Callable, Sequence
from typing import Literal

import keras
import numpy as np
from keras import ops

from keras_attn._checks import positive_integer
from keras_attn.explain.feature_maps import DataFormat
from keras_attn.explain.passes import summed_slopes
from keras_attn.explain.pixel_maps import pixel_split
from keras_attn.explain.targets import Target


def integrated_gradients(
    model: keras.Model,
    images,
    labels=None,
    baseline: float | Sequence[float] | np.ndarray = 0.0,
    steps: int = 32,
    raw: bool = False,
    output: str | int | None = None,
    image_input: str | int | None = None,
    data_format: DataFormat | None = None,
    target: Target | None = None,
    against: Literal["nearest"] | int | list[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
):
    """Share of every pixel in the difference of a score from that of a baseline.

    Sundararajan et al., "Axiomatic Attribution for Deep Networks", eq. (1), for the
    image `x`, the baseline `x'` and the logit `F`:

    - `(x - x') integral over a from 0 to 1 of dF(x' + a (x - x')) / dx`,

    by the midpoint rule, summed over the channels. The raw map of an image sums to
    `F(x) - F(x')`, but for the error of the rule.

    Args:
        model, images, labels, output, image_input, data_format, target, against: See
            `grad_cam`; the model takes images in floating point.
        baseline: Value of the pixels without any evidence, a number, one per channel,
            or images; in the values that the model takes.
        steps: Points on the way from the baseline, each a pass of the model forward
            and backward.
        raw: The signed shares, neither cut off at 0 nor scaled.
        progress: Function of the images scored so far and of their number, called
            after every pass.

    Returns:
        float32 tensor, see `grad_cam`.

    Raises:
        ValueError: See `grad_cam`, or if `baseline` or `steps` do not fit.

    Example:

    >>> model = keras.Sequential([keras.Input((2, 3, 1)), keras.layers.Flatten()])
    >>> image = np.arange(6.0).reshape(1, 2, 3, 1)
    >>> integrated_gradients(model, image, [4], raw=True)[0, 1]
    array([0., 4., 0.], dtype=float32)

    Reference: [sundararajan2017] arXiv:1703.01365.
    """
    steps = positive_integer("steps", steps)
    given = labels, raw, output, image_input, data_format, target, against
    asked, parts, objective = pixel_split(model, images, *given)
    pixels = parts.features
    try:
        start = np.broadcast_to(np.asarray(baseline, "float32"), tuple(pixels.shape))
    except ValueError:
        raise ValueError(
            "Expected `baseline` to be a number, one per channel, or images of shape "
            f"{tuple(pixels.shape)}. Received: {np.shape(baseline)}"
        ) from None
    start = ops.convert_to_tensor(start)
    way = ops.cast(pixels, "float32") - start

    def versions(first, end):
        shares = (ops.arange(first, end, dtype="float32") + 0.5) / steps
        return start + ops.reshape(shares, (-1, 1, 1, 1, 1)) * way

    sums = summed_slopes(asked, parts, objective, versions, steps, progress)
    maps = [ops.sum(parts.to_map(way * total / steps), axis=-1) for total in sums]
    maps = ops.stack(maps, axis=-1)
    return asked.finish(maps if raw else ops.relu(maps), objective, parts.images)
