"""Layers inside layers, which no graph shows: watched, found and given as features."""

import collections
import dataclasses
import functools

import keras

from keras_attn.graph.attention import Watch, grid_among
from keras_attn.graph.flat import run


def watched_steps(steps, **watch):
    """Steps that run as before, but watched, with the full paths of all layers.

    Args:
        steps: List of `Step`.
        **watch: See `keras_attn.graph.attention.Watch`.
    """

    def watched(step):
        *names, own = step.path.split("/")
        if not isinstance(step.operation, keras.Layer):
            names.append(own)

        def call(*args, **kwargs):
            with Watch(names=names, **watch):
                return step.function(*args, **kwargs)

        return dataclasses.replace(step, function=call)

    return [step if step.operation is None else watched(step) for step in steps]


def inner_shapes(steps, values, wanted):
    """Dict from the path of every layer inside that gives one tensor to its shape."""
    shapes = {}

    def on_layer(path, given, result):
        if hasattr(result, "shape"):
            shapes[path] = tuple(result.shape)

    run(watched_steps(steps, on_layer=on_layer), values, wanted)
    return shapes


def divide_at(graph, path, shape, steps):
    """Makes what a layer inside a step returns a tensor of the graph; its key.

    Of a layer that the step calls several times it is the last call; `steps` are those
    on the way to the scores.
    """
    step = next(
        step
        for step in steps
        if step.operation is not None and path.startswith(f"{step.path}/")
    )
    names = step.path.split("/")[:-1]
    calls = [0]

    def find(*args, **kwargs):
        found = []

        def on_layer(at, given, result):
            if at == path:
                found.append(result)

        with Watch(names=names, on_layer=on_layer):
            step.function(*args, **kwargs)
        calls[0] = len(found)
        return found[-1]

    def put(tensor, *args, **kwargs):
        left = [calls[0]]

        def instead(at, given, named):
            if at == path:
                left[0] -= 1
                return None if left[0] else tensor

        with Watch(names=names, instead=instead):
            return step.function(*args, **kwargs)

    return graph.divide(step, path, shape, find, put)


def before_attention(steps, values, wanted):
    """Path of the layer whose tokens the last attention takes, or `None`.

    Later layers change tokens one by one, so that a class token's score has no slope at
    the patches behind them.
    """
    recent, around, found = collections.deque(maxlen=8), [], [None]

    def instead(path, given, named):
        tensors = [each for each in (*given, *named.values()) if hasattr(each, "shape")]
        around.append(tensors[0] if tensors else None)

    def on_layer(path, given, result):
        around.pop()
        recent.append((path, result))

    def on_attention(attention):
        queries, keys = attention.shape[2:]
        if queries != keys:
            return
        for tokens in around[::-1]:
            paths = [path for path, result in recent if result is tokens]
            if paths and len(getattr(tokens, "shape", ())) == 3:
                found[0] = paths[-1]
                return

    watch = dict(instead=instead, on_layer=on_layer, on_attention=on_attention)
    run(watched_steps(steps, **watch), values, wanted)
    return found[0]


def patches_of(tokens, maps, size):
    """Function from tokens to `(batch, rows, columns, channels)` of their patches.

    Args:
        tokens: `(batch, tokens, channels)`; those before the patches are left out.
        maps, size: See `keras_attn.graph.attention.grid_among`.

    Returns:
        The function, or `None` where no grid is found.
    """
    grid = grid_among(tokens.shape[1], maps, size)
    return None if grid is None else functools.partial(_patches, grid)


def _patches(grid, tokens):
    rows, columns = grid
    shape = -1, rows, columns, tokens.shape[-1]
    return keras.ops.reshape(tokens[:, -rows * columns :], shape)
