"""Attention rollout: the flow from the patches to the output of a transformer."""

from typing import Literal

import keras
from keras import ops

from keras_attn.explain.gradients import no_gradients
from keras_attn.explain.maps import (
    call_inputs,
    checked_format,
    finished,
    image_position,
    image_size,
)
from keras_attn.graph.attention import Watch

HEADS = {"mean": ops.mean, "max": ops.max, "min": ops.min}


def attention_rollout(
    model: keras.Model,
    images,
    heads: Literal["mean", "max", "min"] = "mean",
    residual: float = 0.5,
    raw: bool = False,
    grid: tuple[int, int] | None = None,
    image_input: str | int | None = None,
    data_format: Literal["channels_last", "channels_first"] | None = None,
):
    """Share of every patch in the class token after all blocks.

    Abnar & Zuidema, "Quantifying Attention Flow in Transformers", section 3. With the
    attention `A_l` of block `l`, the mean over its heads, and the residual connection
    around it:

    - `B_l = (1 - residual) A_l + residual I`, each row divided by its sum,
    - `rollout = B_L ... B_2 B_1`.

    The map is the class token's row; of a transformer without a class token, the mean
    of all rows. It is the same whatever the class.

    Args:
        model: Any model, subclassed ones too, with attention as `attention_maps`
            finds it. All blocks attend among the same tokens.
        images: `(batch, height, width, channels)`, as the model takes them; for a model
            with several inputs, the list or dict of all.
        heads: `"mean"`, or `"max"` or `"min"` of the heads.
        residual: Share of the residual connection, from 0 to less than 1.
        raw: The row itself, neither interpolated nor scaled.
        grid: `(rows, columns)` of the patches, which are the last tokens; `None`: see
            `attention_maps`.
        image_input: Name or index of the input with the images; `None`: the only one
            with four dimensions.
        data_format: See `grad_cam`.

    Returns:
        float32 tensor `(batch, height, width)` in 0..1; with `raw` `(batch, rows,
        columns)`.

    Raises:
        ValueError: If there is no such attention, blocks differ in their tokens, the
            tokens form no such grid, or an argument is out of range.

    Example:

    >>> model = keras_attn.models.vit("tiny", 16, (64, 96, 3))
    >>> images = keras.random.normal((2, 64, 96, 3))
    >>> attention_rollout(model, images, raw=True).shape
    (2, 4, 6)
    """
    if heads not in HEADS or not 0 <= residual < 1:
        raise ValueError(
            f"Expected `heads` to be one of {tuple(HEADS)}, and `residual` in 0..1 and "
            f"less than 1. Received: heads={heads!r}, residual={residual}"
        )
    data_format = checked_format(data_format)
    inputs = call_inputs(model, images)
    pixels = keras.tree.flatten(inputs)[image_position(inputs, image_input)]
    size = image_size(pixels, data_format)
    rollout = _Rollout(len(pixels), heads, residual)
    is_first = data_format == "channels_first"
    with no_gradients(), Watch(rollout.add, is_first=is_first):
        model(inputs, training=False)
    if rollout.first is None:
        raise ValueError(
            "Expected a model with attention, such as SelfAttention or "
            "MultiHeadAttention layers. "
            f"Received: {getattr(model, 'name', model)!r}, which computes none"
        )
    maps = patch_row(rollout.rolled, rollout.first, size, grid)
    return finished(maps, size, raw)[:, 0]


def patch_row(rolled, attention, size, grid):
    """Maps `(batch, rows, columns, 1)` of the flow `(batch, tokens, tokens)`.

    The class token's row, or without any the mean of all.
    """
    rows, columns = grid_for(attention, size, grid)
    prefix = rolled.shape[-1] - rows * columns
    row = rolled[:, 0, prefix:] if prefix else ops.mean(rolled, axis=1)
    return ops.reshape(row, (-1, rows, columns, 1))


def grid_for(attention, size, grid):
    """Rows and columns of the patches of an `Attention`: those given, or found."""
    tokens = attention.shape[-1]
    found = attention.grid(size) if grid is None else grid
    if found is None:
        raise ValueError(
            "Expected `grid`, the rows and columns of the patches. Received: None, and "
            f"{tokens} tokens of images of {size[0]} x {size[1]} pixels, which fit no "
            "grid"
        )
    if found[0] * found[1] > tokens:
        raise ValueError(
            f"Expected `grid` of at most {tokens} patches. Received: grid={grid}"
        )
    return found


class _Rollout:
    """The product of all blocks, multiplied as each is computed."""

    def __init__(self, batch, heads, residual):
        self._batch, self._heads, self._residual = batch, HEADS[heads], residual
        self.rolled, self.first = None, None

    def add(self, attention):
        self.first = self.first or attention
        check_tokens(attention.shape, (self._batch, *self.first.shape[1:]))
        mean = self._heads(attention.rows(None), axis=1)
        block = (1 - self._residual) * mean + self._residual * ops.eye(mean.shape[-1])
        block = block / ops.sum(block, axis=-1, keepdims=True)
        first = self.rolled is None
        self.rolled = block if first else ops.matmul(block, self.rolled)


def check_tokens(shape, first):
    if shape[2] != shape[3] or (shape[0], shape[2]) != (first[0], first[2]):
        raise ValueError(
            "Expected attention among the same tokens in all blocks. Received: "
            f"attention of shapes {first} and {shape}, as of windows or of other "
            "tokens"
        )
