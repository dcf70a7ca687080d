"""Attention inside any model, read while the model is called.

Whatever the layer, its attention is a softmax over the keys, or a call of
`keras.ops.dot_product_attention`; both are watched. Flash attention, which keeps no
scores, is computed openly as long as it is watched.
"""

import collections
import dataclasses
import difflib
import itertools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_attn.graph.keras_graph import watched

# Maximum number of tokens beside those of the patches, such as registers.
MOST_PREFIX_TOKENS = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Attention:
    """The attention of one block, as it is computed.

    Args:
        path: Names of the layers around it, from outside, with `/`.
        shape: `(batch, heads, queries, keys)`.
        rows: Function from a list of queries, or `None` for all, to their attention
            `(batch, heads, len(list), keys)`, float32.
        maps: Sizes `(rows, columns)` of the maps that layers gave before it, the
            latest first.
    """

    path: str
    shape: tuple
    rows: Callable
    maps: list

    def grid(self, size):
        """Rows and columns of the patches among its tokens, or `None`.

        The latest map with as many cells but for some tokens before them; of a model
        that makes none, the most rows and columns in the aspect ratio of its images.
        """
        return grid_among(self.shape[-1], self.maps, size)


class Watch:
    """Context that follows the calls inside a model, see `keras_graph.watched`.

    An error of these functions leaves it as it is, without what Keras adds to it.

    Args:
        on_attention: Function from `Attention` to `None`, or to the attention
            `(batch, heads, queries, keys)` with which the model computes further.
        on_layer: Function from the path of a layer, its inputs and its result to
            `None`, or to what it returns instead; `None` for none.
        instead: Function from the path of a layer and its inputs to what it returns
            without being called, or `None`; itself `None` for none.
        is_first: Whether maps have their channels first.
        names: Names around the layers.
        maps: List of sizes of maps to add to, the latest first; `None`: a new one.
    """

    def __init__(
        self,
        on_attention=None,
        on_layer=None,
        instead=None,
        is_first=False,
        names=(),
        maps=None,
    ):
        self.on_attention, self.on_layer, self.instead = on_attention, on_layer, instead
        self._is_first = is_first
        self._names, self._maps = [*names], [] if maps is None else maps
        self._error = None

    def __enter__(self):
        self._watching = watched(self)
        self._watching.__enter__()
        return self

    def __exit__(self, *_):
        self._watching.__exit__(None, None, None)
        if self._error is not None:
            raise self._error from None

    def layer(self, call, layer, *args, **kwargs):
        self._names.append(layer.name)
        try:
            path = "/".join(self._names)
            result = None if self.instead is None else self.instead(path, args, kwargs)
            if result is not None:
                return result
            result = call(layer, *args, **kwargs)
            changed = None
            if self.on_layer is not None:
                changed = self.on_layer(path, args, result)
        finally:
            self._names.pop()
        if not isinstance(layer, _OF_ATTENTION) and all(map(_is_map, (*args, result))):
            shape = tuple(result.shape)
            size = shape[2:] if self._is_first else shape[1:3]
            if None not in size and size != (1, 1):
                self._maps.insert(0, size)
        return result if changed is None else changed

    def softmax(self, call, x, axis=-1):
        result = call(x, axis)
        if len(result.shape) != 4 or axis not in (-1, 3):
            return result

        def rows(chosen):
            found = result if chosen is None else ops.take(result, chosen, axis=2)
            return ops.cast(found, "float32")

        changed = self._found(result.shape, rows)
        return result if changed is None else ops.cast(changed, result.dtype)

    def attention(self, call, query, key, value, *args, **kwargs):
        kwargs |= dict(zip(_OPTIONS, args, strict=False))
        if len(query.shape) != 4:
            return call(query, key, value, **kwargs)
        batch, queries, heads, _ = query.shape

        def rows(chosen):
            return _scores(query, key, chosen, **kwargs)

        changed = self._found((batch, heads, queries, key.shape[1]), rows)
        if changed is None and not kwargs.get("flash_attention"):
            return call(query, key, value, **kwargs)
        changed = rows(None) if changed is None else changed
        changed, value = ops.cast(changed, value.dtype), _for_heads(value, heads)
        return ops.einsum("bhts,bshd->bthd", changed, value)

    def _found(self, shape, rows):
        if self.on_attention is None:
            return None
        path = "/".join(self._names)
        attention = Attention(path, tuple(shape), rows, list(self._maps))
        try:
            return self.on_attention(attention)
        except ValueError as error:
            self._error = error
            raise


# Layers within attention, whose results are `(batch, heads, queries, keys)` or so.
_OF_ATTENTION = (keras.layers.Softmax, keras.layers.Dropout, keras.layers.EinsumDense)


def _is_map(tensor):
    return len(getattr(tensor, "shape", ())) == 4


# Arguments of `keras.ops.dot_product_attention` after queries, keys and values.
_OPTIONS = ("bias", "mask", "scale", "is_causal", "flash_attention")


def _scores(query, key, chosen, bias=None, mask=None, scale=None, is_causal=False, **_):
    """Softmax of the scaled products, `(batch, heads, queries, keys)`, in float32."""
    heads, depth = query.shape[2:]
    places = np.arange(query.shape[1]) if chosen is None else np.asarray(chosen)
    query = ops.cast(ops.take(query, places, axis=1), "float32")
    key = ops.cast(_for_heads(key, heads), "float32")
    scale = depth**-0.5 if scale is None else scale
    scores = scale * ops.einsum("bthd,bshd->bhts", query, key)

    def of_rows(each):
        each = ops.convert_to_tensor(each)
        return ops.take(each, places, axis=2) if each.shape[2] != 1 else each

    if bias is not None:
        scores += ops.cast(of_rows(bias), "float32")
    masks = [] if mask is None else [ops.cast(of_rows(mask), "bool")]
    if is_causal:
        masks.append(np.arange(key.shape[1]) <= places[:, None])
    for each in masks:
        scores = ops.where(each, scores, -1e30)
    return ops.softmax(scores)


def _for_heads(tensor, heads):
    """Keys or values `(batch, tokens, heads, width)`, where groups of heads share."""
    shared = heads // tensor.shape[2]
    return ops.repeat(tensor, shared, axis=2) if shared > 1 else tensor


def grid_among(tokens, maps, size):
    """See `Attention.grid`.

    Args:
        tokens: Their number; `None`, while a graph is traced, for the latest map.
        maps: See `Attention`.
        size: `(height, width)` of the images.
    """
    for rows, columns in maps:
        if tokens is None or 0 <= tokens - rows * columns <= MOST_PREFIX_TOKENS:
            return rows, columns
    smaller = [each for each in maps if each != tuple(size)]
    if smaller or tokens is None:
        return None
    height, width = size
    for prefix in range(min(MOST_PREFIX_TOKENS, tokens)):
        rows = round(np.sqrt((tokens - prefix) * height / width))
        if rows and rows * rows * width == (tokens - prefix) * height:
            return rows, (tokens - prefix) // rows
    return None


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Attention of a query to all patches.

    Args:
        patches: `(batch, heads, rows, columns)`, float32.
        number: Index among all attention that the model computes.
        query: Index of the token; `None`: the mean of all.
    """

    patches: Any
    number: int
    query: int | None


def attention_rows(run, batch, size, block=-1, query=None, grid=None, is_first=False):
    """Attention of one query of one block, for every head; no other is kept.

    Args:
        run: Function that runs a model on images.
        batch: Number of images; `None` while a graph is traced.
        size: `(height, width)` of the images.
        block, query, grid: See `keras_attn.explain.attention_maps`.
        is_first: Whether images and maps have their channels first.

    Returns:
        `Rows`.

    Raises:
        ValueError: If there is no attention among patches, no such block or query.
    """
    last = -block if isinstance(block, int) and block < 0 else 1
    kept, paths, others = collections.deque(maxlen=last), [], []

    def on_attention(attention):
        queries, keys = attention.shape[2:]
        of_images = attention.shape[0] in (batch, None) or batch is None
        here = grid or attention.grid(size) if of_images else None
        if here is None or queries not in (1, keys) or keys < here[0] * here[1]:
            others.append(attention.shape)
            return
        number = len(paths) + len(others)
        paths.append(attention.path)
        is_named = isinstance(block, str) and _is_at(attention.path, block)
        if is_named or last > 1 or block in (-1, len(paths) - 1):
            index = _query(query, here, keys)
            kept.append(Rows(_patches(attention, here, index), number, index))

    with Watch(on_attention, is_first=is_first):
        run()
    if not paths:
        seen = list(dict.fromkeys(others))[:3]
        shapes = f" but of shapes {seen}, such as within windows" if seen else ""
        raise ValueError(
            "Expected a model with attention among the patches of its images, by "
            "`keras.layers.MultiHeadAttention`, `keras.ops.dot_product_attention` or "
            "`keras.ops.softmax`; `grid` names the patches where they are not found. "
            f"Received: a model without any{shapes}, images of {size[0]} x {size[1]} "
            f"pixels and grid={grid}"
        )
    if not kept or last > len(paths):
        names = [path.split("/") for path in paths]
        parts = sorted({part for path in names for part in path})
        nearest = difflib.get_close_matches(str(block), parts, 1)
        hint = f"; the nearest is {nearest[0]!r}" if nearest else ""
        raise ValueError(
            f"Expected `block` to be an index of the {len(paths)} blocks with "
            f"attention, or the name of a layer such as {paths[-1]!r}. "
            f"Received: block={block!r}{hint}"
        )
    return kept[0] if last > 1 else kept[-1]


def _is_at(path, block):
    return f"/{block}/" in f"/{path}/"


def read_again(run, number, query, grid):
    """`Rows.patches` of another call of the same model, also while it is traced.

    Args:
        run: Function that calls the model.
        number, query: See `Rows`; a list of numbers for the heads of several blocks.
        grid: `(rows, columns)` of the patches.
    """
    kept, count = {}, itertools.count()
    numbers = number if isinstance(number, (list, tuple)) else [number]

    def on_attention(attention):
        if (here := next(count)) in numbers:
            kept[here] = _patches(attention, grid, query)

    with Watch(on_attention):
        run()
    return ops.concatenate([kept[each] for each in numbers], axis=1)


def class_rows(attention, grid):
    """Maps `(batch, heads, rows, columns)` of the class token, or the mean of all."""
    return _patches(attention, grid, _query(None, grid, attention.shape[-1]))


def _patches(attention, grid, query):
    rows, columns = grid
    if query is None:
        row = ops.mean(attention.rows(None), axis=2, keepdims=True)
    elif attention.shape[2] == 1:
        # Only the class token attends.
        row = attention.rows(None)
    else:
        row = attention.rows([query])
    return ops.reshape(row[..., -rows * columns :], (-1, row.shape[1], rows, columns))


def _query(query, grid, tokens):
    """Index of the token that a query names; `None`: all."""
    rows, columns = grid
    prefix = tokens - rows * columns
    if query is None:
        return 0 if prefix else None
    if isinstance(query, (tuple, list)) and len(query) == 2:
        row, column = query
        if 0 <= row < rows and 0 <= column < columns:
            return prefix + row * columns + column
    if not isinstance(query, int) or not 0 <= query < tokens:
        raise ValueError(
            f"Expected `query` to be one of {tokens} tokens, or (row, column) among "
            f"{rows} x {columns} patches. Received: query={query!r}"
        )
    return query
