"""Occlusion: the fall of a score when a part of the image is covered."""

import itertools
from collections.abc import Callable, Sequence
from typing import Literal

import keras
import numpy as np
from keras import ops

from keras_attn._checks import pair
from keras_attn.explain.gradients import no_gradients
from keras_attn.explain.maps import (
    checked_format,
    checked_labels,
    image_position,
    of_labels,
    scaled,
    warn_of_constant,
)
from keras_attn.explain.split import map_cells
from keras_attn.explain.targets import Target, functions_of, is_several, labels_of
from keras_attn.graph.flat import FlatGraph
from keras_attn.graph.head import head_of, output_key

# Windows along a side by default, however many cells the last map has there.
FEWEST, MOST = 7, 13


def occlusion(
    model: Callable,
    images,
    labels=None,
    window: int | tuple[int, int] | None = None,
    stride: int | tuple[int, int] | None = None,
    value: float | Sequence[float] | None = None,
    raw: bool = False,
    output: str | int | None = None,
    image_input: str | int | None = None,
    batch_size: int = 32,
    data_format: Literal["channels_last", "channels_first"] | None = None,
    target: Target | None = None,
    progress: Callable[[int, int], None] | None = None,
):
    """Fall of a class's score where a window covers the image.

    Zeiler & Fergus, "Visualizing and Understanding Convolutional Networks", section
    4.2: a window of one colour is moved over the image. A pixel's value is the mean,
    over the windows that cover it, of the fall of the score; it is negative where
    covering helps. No gradient is needed, but the model runs once for every window:
    by default as many times as its last map has cells, 49 to 169 times per image.

    Args:
        model: Any Keras model, or function from images to scores `(batch, classes)`,
            or to a dict or list of such outputs.
        images: `(batch, height, width, channels)`, as the model takes them; for a model
            with several inputs, the list or dict of all.
        labels: See `grad_cam`; `None`: the class with the highest score. A single score
            is a logit, unless the model's graph ends in a sigmoid.
        window: Side of the window, an integer or `(rows, columns)`; `None`: a quarter
            of the images'.
        stride: Distance from one window to the next, an integer or `(rows, columns)`;
            `None`: a quarter of the window, or without `window` one window per cell of
            the model's last map where that is known, 7 to 13 along a side. The last
            windows end at the border.
        value: Colour of the window, a number or one for each channel, in the values
            of the images; `None`: the mean colour of each image.
        raw: The mean differences themselves, not cut off at 0 and scaled.
        output: Name or index of the output with the scores; `None`: `logits`, or the
            only output. They are taken as they are, logits or probabilities.
        image_input: Name or index of the input with the images; `None`: the only one
            with four dimensions.
        batch_size: Covered images at a time.
        data_format, target: See `grad_cam`.
        progress: Function of the images scored so far and of their number, called
            after every batch.

    Returns:
        float32 array `(batch, height, width)` in 0..1, or `(batch, classes, height,
        width)` if the labels are; a map that is nowhere positive is zero.

    Raises:
        ValueError: If arguments do not fit the images or the model's outputs.

    Example:

    >>> def red(images):
    ...     return keras.ops.mean(images, axis=(1, 2))
    >>> images = np.zeros((1, 8, 12, 3))
    >>> images[:, :4, :6, 0] = 1.0
    >>> maps = occlusion(red, images, [0], window=2, stride=2)
    >>> maps.shape, maps[0, 1, 1], maps[0, 6, 9]
    ((1, 8, 12), 1.0, 0.0)
    """
    first = checked_format(data_format) == "channels_first"
    inputs = keras.tree.map_structure(np.asarray, images)
    flat = keras.tree.flatten(inputs)
    at = image_position(inputs, image_input)
    pixels = np.moveaxis(flat[at], 1, -1) if first else flat[at]
    functions, many = functions_of(target, labels), is_several(target)

    def scores_of(rows, covered):
        given = [part[rows] for part in flat]
        given[at] = np.moveaxis(covered, -1, 1) if first else covered
        inputs_now = keras.tree.pack_sequence_as(inputs, given)
        return scores(model, inputs_now, output, functions)

    cells = None
    if window is None and stride is None:
        cells = map_cells(model, output, data_format, image_input)
    windows = _windows(pixels.shape[1:3], window, stride, cells)
    found = _covered(
        scores_of, pixels, windows, _colours(pixels, value), batch_size, progress
    )
    clear = np.stack([each for *_, each in itertools.islice(found, len(pixels))])
    if functions is not None:
        # Each function is a score of its own; a single one counts as it is.
        target = [1] if len(functions) == 1 else list(range(len(functions)))
    if target is None:
        labels = checked_labels(labels, clear, _even(model, output))
    else:
        labels = labels_of(target, clear)
    is_many = labels.ndim == 2 and (target is None or many)
    columns = labels if labels.ndim == 2 else labels[:, None]
    clear = of_labels(clear, columns)
    maps = np.zeros((*columns.shape, *pixels.shape[1:3]))
    for row, (y0, y1, x0, x1), left in found:
        fall = clear[row] - of_labels(left[None], columns[row : row + 1])[0]
        maps[row, :, y0:y1, x0:x1] += fall[:, None, None]
    maps = (maps / _times_covered(windows, maps.shape[2:])).astype("float32")
    warn_of_constant(np.moveaxis(maps if raw else np.maximum(maps, 0), 1, -1), labels)
    if not raw:
        stacked = ops.convert_to_tensor(np.moveaxis(np.maximum(maps, 0), 1, -1))
        maps = np.moveaxis(ops.convert_to_numpy(scaled(stacked)), -1, 1)
    return maps if is_many else maps[:, 0]


def _even(model, output):
    """The single score between two classes: that of a sigmoid, or of a logit."""
    try:
        graph = FlatGraph(model)
        kind = head_of(graph, output_key(graph, output)).kind
    except ValueError:
        kind = None
    return {"sigmoid": 0.5, "log_sigmoid": np.log(0.5)}.get(kind, 0.0)


def _covered(scores_of, pixels, windows, colours, batch_size, progress):
    """Yields `(index, window, scores)` for every image and window.

    The images come first as they are, with an empty window.
    """
    windows = [(0, 0, 0, 0), *windows]
    total = len(pixels) * len(windows)
    # Batches of one size, since another one would be compiled anew.
    batch_size = -(-total // -(-total // batch_size))
    for start in range(0, total, batch_size):
        pairs = np.minimum(np.arange(start, start + batch_size), total - 1)
        places, rows = np.divmod(pairs, len(pixels))
        covered, chosen = pixels[rows], [windows[place] for place in places]
        for image, row, (y0, y1, x0, x1) in zip(covered, rows, chosen, strict=True):
            image[y0:y1, x0:x1] = colours[row]
        done = min(start + batch_size, total)
        found = zip(rows, chosen, scores_of(rows, covered), strict=True)
        yield from itertools.islice(found, done - start)
        if progress is not None:
            progress(done, total)


def _times_covered(windows, size):
    """Number of the windows over each pixel."""
    counts = np.zeros(size)
    for y0, y1, x0, x1 in windows:
        counts[y0:y1, x0:x1] += 1
    return counts


def scores(model, inputs, output=None, functions=None):
    """float32 array `(batch, classes)`, one output of a model or function.

    Args:
        functions: From that output to one number per image; `None`: its own classes.
    """
    with no_gradients():
        if isinstance(model, keras.Model):
            outputs = model.predict_on_batch(inputs)
        else:
            outputs = model(inputs)
    names = list(getattr(model, "output_names", None) or [])
    found = np.asarray(_array(_chosen(outputs, output, names)), "float32")
    if functions is not None:
        found = ops.convert_to_tensor(found)
        return np.stack([_array(each(found)) for each in functions], axis=1)
    if found.ndim != 2:
        raise ValueError(
            f"Expected scores (batch, classes). Received: shape {found.shape}"
        )
    return found


def _array(outputs):
    return ops.convert_to_numpy(outputs) if ops.is_tensor(outputs) else outputs


def _chosen(outputs, output, names):
    """One of the outputs, by key, by name, by position, or as the only one."""
    if isinstance(outputs, dict):
        known = dict(outputs)
    elif isinstance(outputs, (list, tuple)):
        known = dict(enumerate(outputs))
        if len(names) == len(known):
            known.update(zip(names, outputs, strict=True))
    else:
        known = {0: outputs, **dict.fromkeys(names[:1], outputs)}
        output = 0 if output is None else output
    chosen = output
    if output is None:
        chosen = "logits" if len(known) > 1 else next(iter(known))
    if chosen not in known:
        raise ValueError(
            "Expected `output` to be the name or index of an output, one of "
            f"{list(known)}. Received: output={output!r}"
        )
    return known[chosen]


def _windows(size, window, stride, cells=None):
    """List of `(y0, y1, x0, x1)` that together cover the image.

    Args:
        cells: `(rows, columns)` of windows, in place of a stride; `None`: unknown.
    """
    if window is None:
        window = tuple(max(1, length // 4) for length in size)
    window = pair("window", window, 1)
    if stride is None:
        stride = tuple(max(1, length // 4) for length in window)
    stride = pair("stride", stride, 1)
    if any(step > width for step, width in zip(stride, window, strict=True)) or any(
        width > length for width, length in zip(window, size, strict=True)
    ):
        raise ValueError(
            "Expected a `window` no larger than the images, and a `stride` no larger "
            f"than the window. Received: window={window}, stride={stride} and images "
            f"of {size[0]} x {size[1]} pixels"
        )
    if cells is None:
        starts = [
            dict.fromkeys([*range(0, length - width, step), length - width])
            for length, width, step in zip(size, window, stride, strict=True)
        ]
    else:
        counts = np.clip(cells, FEWEST, MOST)
        starts = [
            dict.fromkeys(np.rint(np.linspace(0, length - width, count)).astype(int))
            for length, width, count in zip(size, window, counts, strict=True)
        ]
    return [(y, y + window[0], x, x + window[1]) for y in starts[0] for x in starts[1]]


def _colours(pixels, value):
    """The window's colour for every image, `(batch, channels)`."""
    if value is None:
        colours = pixels.mean(axis=(1, 2))
    else:
        colours = np.asarray(value)
        if colours.ndim > 1 or colours.size not in (1, pixels.shape[-1]):
            raise ValueError(
                "Expected `value` to be a number or one for each of "
                f"{pixels.shape[-1]} channels. Received: value={value!r}"
            )
        colours = np.broadcast_to(colours, (len(pixels), pixels.shape[-1]))
    if pixels.dtype.kind in "iu":
        colours = np.rint(colours)
    return colours.astype(pixels.dtype)
