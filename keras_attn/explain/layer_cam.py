"""LayerCAM: features weighted in every cell by the positive slope there."""

from typing import Literal

import keras
from keras import ops

from keras_attn.explain.feature_maps import Asked, DataFormat, feature_maps
from keras_attn.explain.targets import Target


def layer_cam(
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
    """Map of the features that speak for a class, sharp in early layers too.

    Jiang et al., "LayerCAM: Exploring Hierarchical Class Activation Maps for
    Localization", with the features `A` of a layer and the logit `y`:

    - `map = ReLU(sum over k of ReLU(dy / dA_k) A_k)`, eqs. (6) to (8).

    Args:
        model, images, layer, labels, raw, output, image_input, data_format, target,
            against: See `grad_cam`.

    Returns:
        float32 tensor, see `grad_cam`.

    Raises:
        ValueError: See `grad_cam`.

    Example:

    >>> model = keras.applications.MobileNetV2(
    ...     input_shape=(32, 48, 3), weights=None, classes=10
    ... )
    >>> images = keras.random.uniform((2, 32, 48, 3))
    >>> layer_cam(model, images, "block_6_expand_relu").shape
    (2, 32, 48)

    Reference: [jiang2021] LayerCAM, IEEE Transactions on Image Processing, 2021.
    """
    given = model, images, layer, labels, raw, output, image_input, data_format
    return feature_maps(_by_positive_slopes, Asked(*given, target, against))


def _by_positive_slopes(slope, features):
    return ops.relu(ops.sum(ops.relu(slope) * features, axis=-1))
