"""Attention rollout: the flow from the patches to the output of a transformer."""

import contextlib
import inspect
from typing import Literal

import keras
import numpy as np
from keras import ops

from keras_attn.explain.gradients import no_gradients
from keras_attn.explain.maps import checked_format, finished, image_position, image_size
from keras_attn.graph.keras_graph import layers_of
from keras_attn.layers.self_attention import SelfAttention

HEADS = {"mean": ops.mean, "max": ops.max, "min": ops.min}
# Maximum number of tokens beside those of the patches, such as registers.
MOST_PREFIX_TOKENS = 16


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
        model: Any model, subclassed ones too, whose attention layers are
            `keras_attn.layers.SelfAttention` or `keras.layers.MultiHeadAttention`,
            at any depth. All attend among the same tokens.
        images: `(batch, height, width, channels)`, as the model takes them; for a model
            with several inputs, the list or dict of all.
        heads: `"mean"`, or `"max"` or `"min"` of the heads.
        residual: Share of the residual connection, from 0 to less than 1.
        raw: The row itself, neither interpolated nor scaled.
        grid: `(rows, columns)` of the patches, which are the last tokens; `None`: as
            many as the tokens allow, in the images' aspect ratio.
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
    inputs = keras.tree.map_structure(ops.convert_to_tensor, images)
    pixels = keras.tree.flatten(inputs)[image_position(inputs, image_input)]
    size = image_size(pixels, data_format)
    rolled = None
    with no_gradients(), _recorded(model) as attentions:
        model(inputs, training=False)
        for attention in attentions:
            _check_tokens(attention, attentions[0])
            attention = HEADS[heads](ops.cast(attention, "float32"), axis=1)
            block = (1 - residual) * attention + residual * ops.eye(attention.shape[-1])
            block = block / ops.sum(block, axis=-1, keepdims=True)
            rolled = block if rolled is None else ops.matmul(block, rolled)
        if rolled is None:
            raise ValueError(
                "Expected a model with SelfAttention or MultiHeadAttention layers. "
                f"Received: {getattr(model, 'name', model)!r}, which calls none"
            )
        tokens = rolled.shape[-1]
        rows, columns = _grid(tokens, size) if grid is None else grid
        prefix = tokens - rows * columns
        if prefix < 0:
            raise ValueError(
                f"Expected `grid` of at most {tokens} patches. Received: grid={grid}"
            )
        row = rolled[:, 0, prefix:] if prefix else ops.mean(rolled, axis=1)
        maps = ops.reshape(row, (-1, rows, columns, 1))
        return finished(maps, size, raw)[:, 0]


@contextlib.contextmanager
def _recorded(model):
    """List that attention `(batch, heads, tokens, tokens)` goes into, as it is made."""
    attentions, changed = [], []
    layers = {id(layer): layer for layer in layers_of(model, True)}
    try:
        for layer in layers.values():
            for kind, recording in RECORDINGS.items():
                if isinstance(layer, kind):
                    # Past Keras's tracking of attributes.
                    vars(layer)["call"] = recording(layer.call, attentions)
                    changed.append(layer)
        yield attentions
    finally:
        for layer in changed:
            del vars(layer)["call"]


def _of_self_attention(call, attentions):
    def recording(inputs, return_attention_scores=False, output="tokens"):
        result, scores = call(inputs, return_attention_scores=True)
        attentions.append(scores)
        if output != "tokens":
            return call(inputs, output=output)
        return (result, scores) if return_attention_scores else result

    return recording


def _of_multi_head_attention(call, attentions):
    signature = inspect.signature(call)

    def recording(*args, **kwargs):
        given = signature.bind(*args, **kwargs).arguments
        with_scores = given.get("return_attention_scores", False)
        result, scores = call(**{**given, "return_attention_scores": True})
        attentions.append(scores)
        return (result, scores) if with_scores else result

    return recording


RECORDINGS = {
    SelfAttention: _of_self_attention,
    keras.layers.MultiHeadAttention: _of_multi_head_attention,
}


def _check_tokens(attention, first):
    shape, expected = tuple(attention.shape), tuple(first.shape)
    fits = len(shape) == 4 and shape[2] == shape[3]
    if not fits or (shape[0], shape[2]) != (expected[0], expected[2]):
        raise ValueError(
            "Expected attention among the same tokens in all blocks. Received: "
            f"attention of shapes {expected} and {shape}, as of windows or of other "
            "tokens"
        )


def _grid(tokens, size):
    """Rows and columns of patches: the most in the aspect ratio of the images."""
    height, width = size
    for prefix in range(min(MOST_PREFIX_TOKENS, tokens)):
        rows = round(np.sqrt((tokens - prefix) * height / width))
        if rows and rows * rows * width == (tokens - prefix) * height:
            return rows, (tokens - prefix) // rows
    raise ValueError(
        f"Expected `grid`, the rows and columns of the patches. Received: None, and "
        f"{tokens} tokens of images of {height} x {width} pixels, which fit no grid"
    )
