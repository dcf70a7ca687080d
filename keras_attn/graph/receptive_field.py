"""Pixels that a cell of a feature map sees, in closed form from layer configs.

Layers of one's own describe their windows, see `keras_attn.graph.window_steps`.
"""

import dataclasses
from typing import Any

import keras
import numpy as np

from keras_attn._checks import pair
from keras_attn.graph.keras_graph import node_of, producer
from keras_attn.graph.window_steps import (
    UnknownWindowsError,
    adds_up,
    pools_everything,
    steps_of,
)


@dataclasses.dataclass(frozen=True)
class ReceptiveField:
    """The window of pixels behind every cell of a feature map.

    Convention: pixel coordinates (y, x) of the image that the model is given, origin
    at the outer corner of the top-left pixel, boxes half-open. Cell `(i, j)` sees the
    rows `offset + stride * i` up to, not including, `offset + stride * i + size`, and
    the same for columns. Padding makes windows reach outside the image: offsets may be
    negative.

    Args:
        size, stride, offset: Pairs (rows, columns).
        ignored: Names of layers that see the whole image and were left out, as they
            only scale the cells.
    """

    size: tuple
    stride: tuple
    offset: tuple
    ignored: tuple = ()

    def box(self, i, j):
        """The window `(y0, x0, y1, x1)` of cell `(i, j)`."""
        y = self.offset[0] + self.stride[0] * i
        x = self.offset[1] + self.stride[1] * j
        return (y, x, y + self.size[0], x + self.size[1])

    def boxes(self, rows, columns):
        """The windows of a map of this many cells, `(rows, columns, 4)` int32."""
        i, j = np.mgrid[:rows, :columns].astype("int32")
        return np.stack(self.box(i, j), axis=-1)

    def centred(self, size):
        """Windows of another size (integer or pair) around the same centres.

        Where the sizes differ by an odd number, the centres move half a pixel towards
        the top left.
        """
        size = pair("size", size, minimum=1)
        offset = tuple(
            start + (old - new) // 2
            for start, old, new in zip(self.offset, self.size, size, strict=True)
        )
        return dataclasses.replace(self, size=size, offset=offset)


def receptive_field(
    model: keras.Model,
    layer: str | keras.Layer | keras.KerasTensor,
    image_size: tuple[int, int] | None = None,
) -> ReceptiveField:
    """Size, stride and offset of the windows of a layer, from layer configs.

    Follows all paths from the images to the layer. A convolution or pooling with
    kernel `k`, stride `s`, dilation `d` and `p` cells of padding before the map turns

        size -> size + (k - 1) * d * stride,  offset -> offset - p * stride,
        stride -> s * stride.

    Where paths are added or concatenated, the window is the smallest that holds the
    windows of all of them. The result is the smallest box around all pixels that can
    matter to a cell; inside it, strides and dilation may leave pixels out, and cells at
    the border of a padded map see less. Random augmentation and dropout count as at
    inference.

    Layers that see the whole map and only scale the cells (squeeze-excitation, as in
    EfficientNet and MobileNetV3; group normalisation; a softmax over space) are left
    out and named in `ignored`.

    "Same" padding adds `total = max((ceil(n / s) - 1) * s + (k - 1) * d + 1 - n, 0)`
    cells to a map of `n`, `total // 2` of them before it. With stride `s > 1` that
    depends on the size of the image, which must then be known, from the model's input
    or else from `image_size`.

    Args:
        model: Functional or built sequential model, which may contain such models.
        layer: The layer, its name, or a tensor of `model` where a layer has several
            outputs or is called several times.
        image_size: `(height, width)`, for models that leave it open.

    Returns:
        `ReceptiveField`.

    Raises:
        ValueError: If there is no such layer, nothing is known about a layer on the
            way (the message names it), joined paths have different strides, or no path
            keeps to a part of the image.

    Example:

    >>> images = keras.Input((224, 224, 3))
    >>> x = keras.layers.Conv2D(8, 3, strides=2, name="stem")(images)
    >>> x = keras.layers.MaxPooling2D(3, strides=2, name="pool")(x)
    >>> field = receptive_field(keras.Model(images, x), "pool")
    >>> field.size, field.stride, field.offset, field.box(1, 2)
    ((7, 7), (4, 4), (0, 0), (4, 8, 11, 15))
    """
    log = _log(model, image_size)
    what, trace = _find(model, layer, log)
    if trace.error is not None:
        raise ValueError(
            f"Expected {what} of {model.name!r} to have windows that follow from its "
            f"layers. Received: {trace.error}"
        )
    if trace.axes is None:
        raise ValueError(
            f"Expected {what} to have cells that see a part of the image. Received: "
            f"one that sees all of it at once, through {', '.join(trace.ignored)}"
        )
    return trace.field()


def known_fields(
    model: keras.Model, image_size: tuple[int, int] | None = None
) -> dict[int, tuple[ReceptiveField, tuple[int | None, int | None]]]:
    """Windows and numbers of cells of all maps whose windows follow from the layers.

    Args:
        model, image_size: See `receptive_field`.

    Returns:
        Dict from the `id` of a symbolic tensor to its `ReceptiveField` and its rows and
        columns. Of a model that is called several times, the last call counts.
    """
    return {
        id(tensor): (trace.field(), tuple(axis.cells for axis in trace.axes))
        for *_, tensors, traces in _log(model, image_size)
        for tensor, trace in zip(tensors, traces, strict=True)
        if trace.error is None and trace.axes is not None and _is_map(tensor, trace)
    }


# ---- windows ---------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Axis:
    """Windows along one axis; `cells` is the length of the map, if known."""

    size: int = 1
    stride: int = 1
    offset: int = 0
    cells: int | None = None

    def step(self, kernel, stride, dilation, padding):
        reach = (kernel - 1) * dilation
        before, after = self.padding(padding, reach, stride)
        cells = self.cells
        if cells is not None:
            cells = (cells + before + after - reach - 1) // stride + 1
        return _Axis(
            self.size + reach * self.stride,
            self.stride * stride,
            self.offset - before * self.stride,
            cells,
        )

    def padding(self, padding, reach, stride):
        """Cells added before and after the map."""
        if padding == "valid":
            return 0, 0
        if padding != "same":
            return padding
        if stride == 1 or reach == 0:
            total = reach
        elif self.cells is None:
            raise UnknownWindowsError(
                f"has 'same' padding with stride {stride}, which depends on the size "
                "of the image; build the model for one image size, or tell "
                "`receptive_field` the `image_size`"
            )
        else:
            last = (self.cells - 1) // stride * stride
            total = max(last + reach + 1 - self.cells, 0)
        return total // 2, total - total // 2

    def union(self, other):
        if self.stride != other.stride:
            raise UnknownWindowsError(
                f"joins maps of different strides, {self.stride} and {other.stride}"
            )
        offset = min(self.offset, other.offset)
        end = max(self.offset + self.size, other.offset + other.size)
        return dataclasses.replace(self, size=end - offset, offset=offset)


@dataclasses.dataclass(frozen=True)
class _Trace:
    """Windows behind a tensor, as far as they are known.

    `axes` are the windows along rows and columns, `None` for a tensor without cells;
    `ignored` the layers through which the whole image comes in; `error` is the
    reason why nothing is known, which matters only if the tensor is asked for.
    """

    axes: Any = None
    ignored: tuple = ()
    error: str | None = None

    def field(self):
        rows, columns = self.axes
        return ReceptiveField(
            size=(rows.size, columns.size),
            stride=(rows.stride, columns.stride),
            offset=(rows.offset, columns.offset),
            ignored=self.ignored,
        )

    def through(self, step):
        paddings = step.padding
        if isinstance(paddings, str):
            paddings = (paddings, paddings)
        settings = zip(step.kernel, step.stride, step.dilation, paddings, strict=True)
        axes = [axis.step(*one) for axis, one in zip(self.axes, settings, strict=True)]
        return dataclasses.replace(self, axes=tuple(axes))

    def of_lengths(self, lengths):
        """With the lengths of the map, as far as they are known."""
        axes = [
            dataclasses.replace(axis, cells=length or axis.cells)
            for axis, length in zip(self.axes, lengths, strict=True)
        ]
        return dataclasses.replace(self, axes=tuple(axes))


def _join(traces, gates_allowed):
    """The window of a cell that reads its own cell of each of these maps."""
    local = [trace.axes for trace in traces if trace.axes is not None]
    if local and len(local) < len(traces) and not gates_allowed:
        raise UnknownWindowsError("adds what depends on the whole image to every cell")
    joined = None
    if local:
        joined, *others = local
        for axes in others:
            pairs = zip(joined, axes, strict=True)
            joined = tuple(one.union(other) for one, other in pairs)
    names = [name for trace in traces for name in trace.ignored]
    return _Trace(joined, tuple(dict.fromkeys(names)))


# ---- the graph -------------------------------------------------------------------


def _has_graph(model):
    if isinstance(model, keras.Sequential) and not model.built:
        return False
    return isinstance(model, keras.Model) and bool(getattr(model, "inputs", None))


def _log(model, image_size):
    """All calls of a model: the graph, the operation, its outputs and their traces."""
    if not _has_graph(model):
        raise ValueError(
            f"Expected a functional or built sequential model. Received: {model}"
        )
    starts = [_start(tensor, image_size) for tensor in model.inputs]
    log = []
    _trace_model(model, starts, log)
    return log


def _start(tensor, image_size):
    if len(tensor.shape) != 4:
        return _Trace(None, (tensor.name,))
    first = keras.config.image_data_format() == "channels_first"
    known = tuple(tensor.shape[2:] if first else tensor.shape[1:3])
    given = (None, None) if image_size is None else tuple(image_size)
    if len(given) != 2 or any(
        None not in (size, wanted) and size != wanted
        for size, wanted in zip(known, given, strict=True)
    ):
        raise ValueError(
            f"Expected `image_size` to agree with the model's input, {known}. "
            f"Received: image_size={image_size}"
        )
    sizes = [size or wanted for size, wanted in zip(known, given, strict=True)]
    return _Trace(tuple(_Axis(cells=size) for size in sizes))


def _trace_model(model, starts, log):
    """Traces of the model's outputs; all calls on the way are added to `log`."""
    found = {
        id(tensor): trace for tensor, trace in zip(model.inputs, starts, strict=True)
    }
    log += [
        (model, producer(tensor), [tensor], [trace])
        for tensor, trace in zip(model.inputs, starts, strict=True)
    ]
    for node in _calls(model):
        inputs = [found[id(tensor)] for tensor in node.input_tensors]
        traces = _trace_call(node, inputs, log)
        found.update(
            (id(tensor), trace)
            for tensor, trace in zip(node.output_tensors, traces, strict=True)
        )
        log.append((model, node.operation, node.output_tensors, traces))
    return [found[id(tensor)] for tensor in model.outputs]


def _calls(model):
    """The layer calls between a model's inputs and its outputs, in order."""
    given = {id(tensor) for tensor in model.inputs}

    def makers(tensors):
        for tensor in tensors:
            if id(tensor) not in given:
                yield node_of(tensor), False

    ordered, seen = [], set()
    waiting = list(makers(model.outputs))
    while waiting:
        node, inputs_done = waiting.pop()
        if inputs_done:
            ordered.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            waiting.append((node, True))
            waiting.extend(makers(node.input_tensors))
    return ordered


def _trace_call(node, inputs, log):
    operation, outputs = node.operation, node.output_tensors
    unknown = [trace for trace in inputs if trace.error is not None]
    if unknown:
        return [unknown[0]] * len(outputs)
    if _has_graph(operation):
        return _trace_model(operation, inputs, log)
    try:
        trace = _trace_operation(operation, inputs)
    except UnknownWindowsError as problem:
        name = f"layer {operation.name!r} ({type(operation).__name__})"
        return [_Trace(error=f"{name} {problem}")] * len(outputs)
    if trace.axes is None or not hasattr(operation, "window_steps"):
        return [trace] * len(outputs)
    # Such a layer may have other outputs too, and may have resized its input.
    return [
        trace.of_lengths(tensor.shape[1:3])
        if _is_map(tensor, trace)
        else _Trace(None, (operation.name,))
        for tensor in outputs
    ]


def _is_map(tensor, trace):
    """`True` if a tensor has cells, more than one made of all others."""
    if len(tensor.shape) != 4:
        return False
    lengths = tuple(axis.cells for axis in trace.axes)
    return lengths == (1, 1) or tuple(tensor.shape[1:3]) != (1, 1)


def _trace_operation(operation, inputs):
    local = [trace for trace in inputs if trace.axes is not None]
    if not local:
        return _join(inputs, gates_allowed=True)
    if pools_everything(operation):
        return _Trace(None, (operation.name,))
    steps = steps_of(operation)
    trace = _join(inputs, gates_allowed=not adds_up(operation))
    if None in steps:
        own = dict.fromkeys((*trace.ignored, operation.name))
        trace = dataclasses.replace(trace, ignored=tuple(own))
    for step in steps:
        trace = trace if step is None else trace.through(step)
    return trace


def _find(model, layer, log):
    """Name, for messages, of what is asked for, and its trace."""
    if isinstance(layer, keras.KerasTensor):
        what = f"tensor {layer.name!r}"
        found = [
            trace
            for _, _, tensors, traces in log
            for tensor, trace in zip(tensors, traces, strict=True)
            if tensor is layer
        ]
    else:
        what = f"layer {layer if isinstance(layer, str) else layer.name!r}"
        calls = [call for call in log if call[1] is layer or call[1].name == layer]
        # A layer of the model itself comes before those of models inside it.
        calls = [call for call in calls if call[0] is model] or calls
        found = []
        for _, _, tensors, traces in calls:
            pairs = list(zip(tensors, traces, strict=True))
            maps = [trace for tensor, trace in pairs if len(tensor.shape) == 4]
            found += maps or traces
    if not found:
        raise ValueError(
            "Expected `layer` to lie between the inputs and the outputs of "
            f"{model.name!r}. Received: layer={layer!r}"
        )
    if len({(trace.axes, trace.error) for trace in found}) > 1:
        raise ValueError(
            f"Expected {what} to be called once, with one map as its output. "
            "Received: several maps with different windows; give the tensor instead"
        )
    return what, found[0]
