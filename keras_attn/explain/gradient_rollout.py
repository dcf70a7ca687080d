"""Attention rollout for a class: the flow weighted by slopes of its score."""

from typing import Literal

import keras
from keras import ops

from keras_attn.explain.attention_rollout import patch_row
from keras_attn.explain.attention_slopes import AttentionSlopes
from keras_attn.explain.feature_maps import Asked, DataFormat
from keras_attn.explain.targets import Target


def gradient_rollout(
    model: keras.Model,
    images,
    labels=None,
    raw: bool = False,
    grid: tuple[int, int] | None = None,
    output: str | int | None = None,
    image_input: str | int | None = None,
    data_format: DataFormat | None = None,
    target: Target | None = None,
    against: Literal["nearest"] | int | list[int] | None = None,
):
    """Share of every patch in the class token, by the attention that raises a score.

    Chefer et al., "Generic Attention-model Explainability for Interpreting Bi-Modal and
    Encoder-Decoder Transformers", for self-attention. With the attention `A_l` of block
    `l` and the logit `y` of a class:

    - `B_l = mean over heads of ReLU(dy / dA_l * A_l)`, eq. (5),
    - `R = I`, then `R <- R + B_l R` from the first block to the last, eq. (6).

    The map is the class token's row; of a transformer without a class token, the mean
    of all rows.

    Args:
        model: Functional or `Sequential` model with attention as `attention_maps` finds
            it, also inside its layers. All blocks attend among the same tokens.
        images, labels, raw, output, image_input, data_format, target, against: See
            `grad_cam`.
        grid: See `attention_maps`.

    Returns:
        float32 tensor, see `grad_cam`; raw maps have one cell per patch.

    Raises:
        ValueError: See `grad_cam` and `attention_rollout`.

    Example:

    >>> model = keras_attn.models.vit("mini", 16, (64, 96, 3), num_classes=5)
    >>> images = keras.random.normal((2, 64, 96, 3))
    >>> gradient_rollout(model, images, labels=[0, 3]).shape
    (2, 64, 96)

    Reference: [chefer2021] arXiv:2103.15679.
    """
    given = None, labels, raw, output, image_input, data_format, target, against
    asked = Asked(model, images, *given)
    blocks = AttentionSlopes(asked)
    attentions = [each.rows(None) for each in blocks.attentions]
    shapes = {number: each.shape for number, each in enumerate(attentions)}
    maps = []
    for function in blocks.objective.functions:
        flow = ops.eye(attentions[0].shape[-1])[None]
        slopes = blocks.slopes(function, shapes)
        for attention, slope in zip(attentions, slopes, strict=True):
            flow = flow + ops.matmul(ops.mean(ops.relu(slope * attention), 1), flow)
        maps.append(patch_row(flow, blocks.attentions[0], blocks.size, grid))
    maps = ops.concatenate(maps, axis=-1)
    return asked.finish(maps, blocks.objective, blocks.images)
