"""Score-CAM: features weighted by the score of the image under each; no gradient."""

from typing import Literal

import keras
from keras import ops

from keras_attn.explain.feature_maps import Asked, DataFormat
from keras_attn.explain.gradients import no_gradients
from keras_attn.explain.maps import checked_format, image_size, scaled
from keras_attn.explain.split import IMAGES
from keras_attn.explain.targets import Target


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
        is_first = checked_format(data_format) == "channels_first"
        size = image_size(parts.images, checked_format(data_format))
        features = parts.to_map(ops.cast(parts.features, "float32"))
        scores = []
        for channel in range(features.shape[-1]):
            mask = features[..., channel : channel + 1]
            mask = scaled(
                ops.image.resize(mask, size, "bilinear", data_format="channels_last")
            )
            mask = ops.moveaxis(mask, -1, 1) if is_first else mask
            left = whole.logits_of(
                whole.features * ops.cast(mask, whole.features.dtype)
            )
            left = ops.cast(left, "float32")
            scores.append(ops.stack([each(left) for each in objective.functions], -1))
        # (batch, maps, channels)
        weights = ops.softmax(ops.stack(scores, axis=-1))
        maps = ops.relu(ops.einsum("brck,bmk->brcm", features, weights))
        return asked.finish(maps, objective, parts.images)
