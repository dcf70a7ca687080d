"""HiResCAM: features weighted in every cell by the slope there."""

from typing import Literal

import keras
from keras import ops

from keras_attn.explain.feature_maps import Asked, DataFormat, feature_maps
from keras_attn.explain.targets import Target


def hires_cam(
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
    """Map of the features that a class's score is computed from.

    Draelos & Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of
    convolutional neural networks", with the features `A` of a layer and the logit `y`:

    - `map = ReLU(sum over k of dy / dA_k A_k)`, eq. (5).

    Where one linear layer follows the features, the cells before ReLU sum to the logit
    less its bias. Behind global average pooling it is Grad-CAM.

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
    >>> hires_cam(model, images).shape
    (2, 32, 48)

    Reference: [draelos2020] arXiv:2011.08891.
    """
    given = model, images, layer, labels, raw, output, image_input, data_format
    return feature_maps(_by_slopes, Asked(*given, target, against))


def _by_slopes(slope, features):
    return ops.relu(ops.sum(slope * features, axis=-1))
