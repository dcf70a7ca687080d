"""Attention maps of any transformer, head by head."""

from typing import Literal

import keras

from keras_attn.explain.gradients import no_gradients
from keras_attn.explain.maps import (
    call_inputs,
    checked_format,
    image_position,
    image_size,
)
from keras_attn.graph.attention import attention_rows


def attention_maps(
    model: keras.Model,
    images,
    block: int | str = -1,
    query: int | tuple[int, int] | None = None,
    grid: tuple[int, int] | None = None,
    image_input: str | int | None = None,
    data_format: Literal["channels_last", "channels_first"] | None = None,
):
    """Attention of the class token to every patch, for each head of one block.

    The model is called once, and only the rows of that block are kept. Attention is
    found wherever it is computed with Keras, at any depth: by
    `keras.layers.MultiHeadAttention`, `keras_attn.layers.SelfAttention`, and layers of
    others, such as those of KerasHub, that call `keras.ops.dot_product_attention` or
    `keras.ops.softmax`.

    Args:
        model: Any model, subclassed ones too, in which the patches of an image attend
            to each other. The first token is the class token, registers follow it, and
            the patches are last.
        images: `(batch, height, width, channels)`, as the model takes them; for a model
            with several inputs, the list or dict of all.
        block: Index of the block, from 0, or from -1 backwards; or the name of a layer
            with the attention inside, such as `"block_12"`.
        query: Whose attention: the index of a token, or `(row, column)` of a patch;
            `None`: that of the class token, or, without any, the mean of all patches.
        grid: `(rows, columns)` of the patches; `None`: those of the map that the tokens
            are made of, or else in the aspect ratio of the images.
        image_input: Name or index of the input with the images; `None`: the only one
            with four dimensions.
        data_format: See `grad_cam`.

    Returns:
        float32 tensor `(batch, heads, rows, columns)`; with what goes to the tokens
        that are no patches, each head sums to 1.

    Raises:
        ValueError: If the model computes no attention among such patches, or has no
            such block or query.

    Example:

    >>> model = keras_attn.models.vit("tiny", 16, (64, 96, 3))
    >>> images = keras.random.normal((2, 64, 96, 3))
    >>> attention_maps(model, images).shape
    (2, 3, 4, 6)
    """
    data_format = checked_format(data_format)
    inputs = call_inputs(model, images)
    pixels = keras.tree.flatten(inputs)[image_position(inputs, image_input)]
    with no_gradients():
        return attention_rows(
            lambda: model(inputs, training=False),
            pixels.shape[0],
            image_size(pixels, data_format),
            block,
            query,
            grid,
            data_format == "channels_first",
        ).patches
