"""Heads of a transformer that see objects, chosen without labels or training."""

from collections.abc import Sequence
from typing import Literal

import keras
import numpy as np
from keras import ops

from keras_attn._checks import positive_integer
from keras_attn.explain.gradients import no_gradients
from keras_attn.explain.maps import (
    call_inputs,
    checked_format,
    image_position,
    image_size,
)
from keras_attn.graph.attention import Watch, class_rows

CLUSTERS, TEMPERATURE = 5, 60.0
# Starts of k-means, of which the best is kept, and steps of each at most.
STARTS, STEPS = 10, 100


def object_heads(
    model: keras.Model,
    images,
    clusters: int = CLUSTERS,
    grid: tuple[int, int] | None = None,
    image_input: str | int | None = None,
    data_format: Literal["channels_last", "channels_first"] | None = None,
) -> list[tuple[int, int]]:
    """Heads of all blocks in which patches of objects resemble each other.

    Rawlekar et al., "Finding Distributed Object-Centric Properties in Self-Supervised
    Transformers" (Object-DINO), section 4. Per head of every block:

    - `A_r = softmax(r r^T / 60)` of the queries, of the keys and of the values `r` of
      the patches, each of length 1, and their mean `A = (A_q + A_k + A_v) / 3`,
    - the mean of `A` over its rows, for every image, is what the head is known by;
      each number is brought to mean 0 and variance 1 over the heads,
    - k-means divides the heads of all blocks into clusters; the one with the most heads
      of the last block sees objects.

    Rows are averaged, and numbers standardised, as in the authors' code; the paper has
    the whole matrix. Where the paper leaves room: the numbers of all images are put
    side by side; there are no more clusters than heads; of clusters with as many heads
    of the last block, the one whose attention (of the class token, or of all patches
    without one) falls least on the outermost patches is taken, where objects seldom
    are; rotary positions, which are applied later, have no part.

    Args:
        model: Any model with attention as `attention_maps` finds it, whose queries,
            keys and values are made by layers inside its attention.
        images: A handful, `(batch, height, width, channels)`, as the model takes them.
        clusters: Most clusters.
        grid, image_input, data_format: See `attention_maps`.

    Returns:
        Sorted list of pairs `(block, head)`, for `attention_map_model`.

    Raises:
        ValueError: If the model has no such attention.

    Example:

    >>> model = keras_attn.models.vit("mini", 16, (64, 96, 3))
    >>> heads = object_heads(model, keras.random.normal((4, 64, 96, 3)))
    >>> maps = keras_attn.models.attention_map_model(model, "mean", heads=heads)

    Reference: [rawlekar2026] arXiv:2603.26127.
    """
    positive_integer("clusters", clusters)
    rows: dict = {}
    outside: dict = {}

    def take(block, parts, shares):
        for head in range(shares.shape[1]):
            each = [_mean_similarities(part[:, head]) for part in parts]
            rows[block, head] = np.mean(each, axis=0).ravel()
            outside[block, head] = shares[:, head].mean()

    _follow(model, images, take, grid, image_input, data_format)
    heads, values = list(rows), np.array(list(rows.values()))
    shares = np.array(list(outside.values()))
    spread = values.std(axis=0)
    values = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    labels = _k_means(values, min(clusters, len(heads)))
    is_last = np.array([block == heads[-1][0] for block, _ in heads])

    def order(label):
        chosen = labels == label
        return (chosen & is_last).sum(), -shares[chosen].mean()

    best = max(np.unique(labels), key=order)
    return [head for head, label in zip(heads, labels, strict=True) if label == best]


def head_features(
    model: keras.Model,
    images,
    heads: Sequence[tuple[int, int]],
    grid: tuple[int, int] | None = None,
    image_input: str | int | None = None,
    data_format: Literal["channels_last", "channels_first"] | None = None,
) -> np.ndarray:
    """Features of patches in some heads, for `token_cut` and `lost`.

    Queries, keys and values of each head, of length 1, side by side, so that a cosine
    of two patches is the mean of those of the parts: the graph of Object-DINO.

    Args:
        model, images, grid, image_input, data_format: See `object_heads`.
        heads: Pairs `(block, head)`.

    Returns:
        float32 array `(batch, rows, columns, channels)`.

    Raises:
        ValueError: As `object_heads`, or for a head that the model lacks.

    Example:

    >>> model = keras_attn.models.vit("mini", 16, (64, 96, 3))
    >>> images = keras.random.normal((2, 64, 96, 3))
    >>> head_features(model, images, [(0, 1), (2, 3)]).shape
    (2, 4, 6, 192)
    """
    kept: dict = {}

    def take(block, parts, shares):
        for head in range(shares.shape[1]):
            is_asked = (block, head) in map(tuple, heads)
            features = [part[:, head] for part in parts] if is_asked else None
            kept[block, head] = features

    rows, columns = _follow(model, images, take, grid, image_input, data_format)
    if not heads or not all(tuple(head) in kept for head in heads):
        raise ValueError(
            f"Expected heads among {len(kept)} pairs (block, head), the last of "
            f"them {max(kept)}. Received: heads={heads}"
        )
    side_by_side = [part for head in heads for part in kept[tuple(head)]]
    found = np.concatenate(side_by_side, axis=-1)
    return found.reshape(len(found), rows, columns, -1).astype("float32")


def _follow(model, images, take, grid, image_input, data_format):
    """Calls a model with `_Parts`; rows and columns of the patches."""
    data_format = checked_format(data_format)
    inputs = call_inputs(model, images)
    pixels = keras.tree.flatten(inputs)[image_position(inputs, image_input)]
    parts = _Parts(take, len(pixels), image_size(pixels, data_format), grid)
    is_first = data_format == "channels_first"
    with no_gradients(), Watch(parts.attention, parts.layer, is_first=is_first):
        model(inputs, training=False)
    if not parts.found:
        raise ValueError(
            "Expected a model with attention among the patches of its images. "
            f"Received: {getattr(model, 'name', model)!r}, which computes none"
        )
    return parts.grid


class _Parts:
    """Queries, keys and values of patches, while a model computes them.

    Args:
        take: Function of the number of a block, its three parts `(batch, heads,
            patches, depth)`, of length 1 along the last axis, and the shares `(batch,
            heads)` of the attention that fall on the outermost patches.
        batch: Number of images.
        size: `(height, width)` of the images.
        grid: `(rows, columns)` of the patches, or `None`.
    """

    def __init__(self, take, batch, size, grid):
        self._take, self._batch, self._size, self.grid = take, batch, size, grid
        self._results, self._count, self.found = [], 0, False

    def layer(self, path, inputs, result):
        if len(getattr(result, "shape", ())) in (3, 4):
            self._results.append((path.rpartition("/")[0], result))

    def attention(self, attention):
        batch, heads, queries, keys = attention.shape
        grid = self.grid or attention.grid(self._size)
        if batch != self._batch or grid is None or queries not in (1, keys):
            return
        if keys < grid[0] * grid[1]:
            return
        self.grid, block = grid, self._count
        self._count += 1
        if queries == 1:
            # Only the class token attends.
            return
        # Softmax may be a layer of its own, one further inside.
        inside = attention.path, attention.path.rpartition("/")[0]
        results = [
            ops.reshape(ops.cast(result, "float32"), (batch, keys, -1))
            for parent, result in self._results
            if parent in inside and tuple(result.shape[:2]) == (batch, keys)
        ]
        self._results.clear()
        parts = [
            ops.reshape(part, (batch, keys, heads, -1))[:, -grid[0] * grid[1] :]
            for part in _three(results, heads, attention.path)
        ]
        parts = [_unit(ops.convert_to_numpy(part)) for part in parts]
        maps = class_rows(attention, grid)
        inner = maps[:, :, 1:-1, 1:-1]
        share = ops.sum(inner, axis=(2, 3)) / ops.sum(maps, axis=(2, 3))
        self._take(block, parts, 1 - ops.convert_to_numpy(share))
        self.found = True


def _three(results, heads, path):
    """Queries, keys and values: the last three results, or the thirds of the last."""
    widths = [result.shape[-1] for result in results]
    if len(set(widths[-3:])) == 1 and len(widths) > 2 and widths[-1] % heads == 0:
        return results[-3:]
    if widths and widths[-1] % (3 * heads) == 0:
        return ops.split(results[-1], 3, axis=-1)
    raise ValueError(
        "Expected attention whose queries, keys and values are made by layers inside, "
        f"as wide as each other. Received: {path!r} with results of widths {widths}"
    )


def _unit(part):
    """`(batch, heads, patches, depth)` of length 1, heads and patches exchanged."""
    part = np.swapaxes(part, 1, 2)
    length = np.linalg.norm(part, axis=-1, keepdims=True)
    return part / np.maximum(length, 1e-12)


def _mean_similarities(part):
    """Mean row of the softmax of the patches' cosines, `(batch, patches)`."""
    found = []
    # One by one: the matrices of large images are large.
    for patches in part.astype("float64"):
        weights = np.exp(patches @ patches.T / TEMPERATURE)
        found.append((weights / weights.sum(axis=-1, keepdims=True)).mean(axis=0))
    return np.array(found)


def _k_means(values, count):
    """Clusters of some rows, integers; the same for the same rows."""
    random, best, found = np.random.default_rng(0), np.inf, None
    for _ in range(STARTS):
        centres = values[[random.integers(len(values))]]
        while len(centres) < count:
            distances = _distances(values, centres).min(axis=1)
            total = distances.sum()
            share = distances / total if total else None
            chosen = random.choice(len(values), p=share)
            centres = np.concatenate([centres, values[[chosen]]])
        for _ in range(STEPS):
            labels = _distances(values, centres).argmin(axis=1)
            moved = [
                values[labels == label].mean(axis=0) if label in labels else centre
                for label, centre in enumerate(centres)
            ]
            if np.array_equal(moved, centres):
                break
            centres = np.array(moved)
        loss = _distances(values, centres).min(axis=1).sum()
        if loss < best:
            best, found = loss, labels
    return found


def _distances(values, centres):
    return ((values[:, None] - centres) ** 2).sum(axis=-1)
