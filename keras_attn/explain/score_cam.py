"""Score-CAM: features weighted by the score of the image under each; no gradient."""

from collections.abc import Callable
from typing import Literal

import keras
from keras import ops

from keras_attn.explain.feature_maps import Asked, DataFormat
from keras_attn.explain.gradients import no_gradients
from keras_attn.explain.maps import checked_format, image_size, scaled
from keras_attn.explain.passes import (
    SCORED,
    compiled_if_worth,
    scores_of,
    versions_in_one,
)
from keras_attn.explain.split import IMAGES
from keras_attn.explain.targets import Target

LAST = "channels_last"


def score_cam(
    model: keras.Model,
    images,
    layer: str | None = None,
    labels=None,
    raw: bool = False,
    output: str | int | None = None,
    image_input: str | int | None = None,
    data_format: DataFormat | None = None,
    target: Target | None = None,
    against: Literal["nearest"] | int | list[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
):
    """Map of a layer's features by what each alone leaves of a class's score.

    Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural
    Networks". Every channel `A_k`, enlarged to the images and scaled to 0..1, masks the
    images; with `y_k` the logit of a class that is left:

    - `w = softmax over k of y_k`,
    - `map = ReLU(sum over k of w_k A_k)`, eq. (4).

    The model runs once for every channel of the layer, 1280 times in MobileNetV2.

    Args:
        model, images, layer, labels, raw, output, image_input, data_format, target,
            against: See `grad_cam`.
        progress: Function of the images scored so far and of their number, called
            after every pass.

    Returns:
        float32 tensor, see `grad_cam`.

    Raises:
        ValueError: See `grad_cam`.

    Example:

    >>> images = keras.Input((8, 12, 3))
    >>> x = keras.layers.Conv2D(4, 3, name="features")(images)
    >>> x = keras.layers.GlobalAveragePooling2D()(x)
    >>> model = keras.Model(images, keras.layers.Dense(3)(x))
    >>> score_cam(model, keras.random.uniform((2, 8, 12, 3)), "features").shape
    (2, 8, 12)

    Reference: [wang2019] arXiv:1910.01279.
    """
    given = labels, raw, output, image_input, data_format, target, against
    asked = Asked(model, images, layer, *given)
    with no_gradients():
        parts, objective = asked.split()
        whole, _ = Asked(model, images, IMAGES, *given).split()
        size = image_size(parts.images, checked_format(data_format))
        is_first = checked_format(data_format) != LAST
        features = parts.to_map(ops.cast(parts.features, "float32"))
        whole_shape, channels = tuple(whole.features.shape), features.shape[-1]
        count = versions_in_one(channels, whole, SCORED)
        logits_of = compiled_if_worth(whole.logits_of, channels // count, model)
        scores = []
        for start in range(0, channels, count):
            masks = features[..., start : start + count]
            masks = ops.image.resize(masks, size, "bilinear", data_format=LAST)
            masks = ops.moveaxis(scaled(masks), -1, 0)
            masks = ops.expand_dims(masks, 2 if is_first else -1)
            left = _masked(whole.features, masks)
            logits = logits_of(ops.reshape(left, (-1, *whole_shape[1:])))
            scores.append(scores_of(objective.functions, logits, count))
            if progress is not None:
                done = (start + count) * whole_shape[0]
                progress(done, channels * whole_shape[0])
        # (batch, maps, channels)
        weights = ops.softmax(ops.moveaxis(ops.concatenate(scores), 0, -1))
        maps = ops.relu(ops.einsum("brck,bmk->brcm", features, weights))
        return asked.finish(maps, objective, parts.images)


def _masked(images, masks):
    """`(masks, batch, ...)`; whole numbers of 8-bit images are rounded."""
    left = ops.cast(images, "float32") * masks
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(images.dtype)):
        left = ops.round(left)
    return ops.cast(left, images.dtype)
