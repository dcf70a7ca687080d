"""Places for blocks: the last map of every stage of a network."""

import dataclasses
import itertools
from typing import NamedTuple

import keras

from keras_attn._checks import sides
from keras_attn.graph.flat import FlatGraph, Step
from keras_attn.graph.keras_graph import private_name
from keras_attn.graph.receptive_field import ReceptiveField, known_fields
from keras_attn.graph.window_steps import adds_up

# Sides of a photograph for models that leave the size open.
USUAL_SIZE = 224
ACTIVATIONS = (
    keras.layers.Activation,
    keras.layers.ELU,
    keras.layers.LeakyReLU,
    keras.layers.PReLU,
    keras.layers.ReLU,
)
# The same without weights or names, as operations on tensors.
OPERATIONS = {
    f"ops.{name}"
    for name in "Elu Gelu HardSilu LeakyRelu Relu Relu6 Silu Softplus Tanh".split()
}
PADDINGS = (keras.layers.ZeroPadding2D, keras.layers.Cropping2D)


class Place(NamedTuple):
    """The end of a stage, where a block can go.

    Args:
        layer: Name or path of the layer, as `insert` takes it.
        size: Rows and columns of the map.
        channels: Channels of the map.
        stride: Pixels from one cell to the next, `(rows, columns)`.
        receptive_field: Rows and columns of pixels that a cell sees, or `None` behind a
            layer whose windows are unknown.
    """

    layer: str
    size: tuple[int, int]
    channels: int
    stride: tuple[int, int]
    receptive_field: tuple[int, int] | None


def places(
    model: keras.Model, image_size: int | tuple[int, int] | None = None
) -> list[Place]:
    """The last map of every stage, from the images to the scores.

    A stage is a row of maps of one stride in which windows grow; a stem that only
    halves the image does not count. Everything behind its last map depends on the
    images through that map alone, so that a block there misses nothing. It is

    - in the last stage, the last map of the network,
    - the last sum or concatenation of maps, with the activation behind it, where there
      is one: what expands its channels belongs to the first block of the next stage,
    - else the last map in front of the layer that begins the next stage, or in front of
      the expansion of an inverted bottleneck.

    Args:
        model: Functional or built sequential model, which may contain such models.
        image_size: Side, or `(height, width)`, of the images of a model that takes
            several sizes, 224 by default; other sizes change the maps, not the places.

    Returns:
        List of `Place`; empty for a network without such maps, such as a transformer.

    Raises:
        ValueError: If the model has no graph.

    Example:

    >>> model = keras.applications.ResNet50(weights=None)
    >>> [place.layer for place in places(model)][:2]
    ['conv2_block3_out', 'conv3_block4_out']
    """
    graph = FlatGraph(model)
    size = None
    if any(None in tensor.shape[1:3] for tensor in model.inputs):
        size = sides(image_size or USUAL_SIZE)
    fields = known_fields(model, size)
    smallest: dict[tuple, tuple] = {}
    for field, _ in fields.values():
        smallest[field.stride] = min(field.size, smallest.get(field.stride, field.size))
    fields |= _unknown_fields(graph, fields, size)
    maps = _bottlenecks(graph, fields)
    stages = [list(stage) for _, stage in itertools.groupby(maps, lambda x: x.stride)]
    stages = [
        stage
        for stage in stages
        if not stage[-1].reach or stage[-1].reach > smallest[stage[-1].stride]
    ]
    return [_end(stage, stage is stages[-1]).place() for stage in stages]


@dataclasses.dataclass(frozen=True)
class _Map:
    """A map that everything behind depends on, and the step that returns it."""

    step: Step
    size: tuple[int, int]
    channels: int
    stride: tuple[int, int]
    reach: tuple
    joins: bool

    def place(self):
        return Place(
            self.step.path, self.size, self.channels, self.stride, self.reach or None
        )


def _unknown_fields(graph, fields, size):
    """Strides of maps behind layers of unknown windows, from the sizes of the maps."""
    image = size or next(
        (
            graph.tensors[key].shape[1:3]
            for key in graph.inputs
            if id(graph.tensors[key]) in fields
        ),
        None,
    )
    found = {}
    for tensor in graph.tensors.values():
        cells = tuple(tensor.shape[1:3])
        if id(tensor) in fields or len(tensor.shape) != 4 or None in cells:
            continue
        if image and cells != (1, 1):
            stride = tuple(round(a / b) for a, b in zip(image, cells, strict=True))
            found[id(tensor)] = ReceptiveField((), stride, ()), cells
    return found


def _bottlenecks(graph, fields):
    """Yields the maps through which all images go to the scores, as `_Map`."""
    paths = {out: graph.steps_to([out], graph.inputs) for out in graph.outputs}
    out, steps = max(paths.items(), key=lambda path: len(path[1]))
    last_use = {key: at for at, step in enumerate(steps) for _, key in step.sources}
    last_use[out] = len(steps)
    # What does not depend on images, such as a second input of numbers, is left out.
    live = {key for key in graph.inputs if id(graph.tensors[key]) in fields}
    seen = set(live)
    for place, step in enumerate(steps):
        if any(key in seen for _, key in step.sources):
            seen.update(step.results)
            live.update(step.results)
        live = {key for key in live if last_use.get(key, 0) > place}
        key = next(iter(live), None)
        if len(live) > 1 or key not in step.results:
            continue
        tensor = graph.tensors[key]
        once = len(graph.calls.get(step.path, ())) == 1
        if id(tensor) in fields and once and not isinstance(step.operation, PADDINGS):
            field, size = fields[id(tensor)]
            maps = {key for _, key in step.sources if id(graph.tensors[key]) in fields}
            joins = len(maps) > 1 and adds_up(step.operation)
            channels = tensor.shape[-1]
            yield _Map(step, size, channels, field.stride, field.size, joins)


def _end(maps, is_last):
    """The last map of a stage, see `places`."""
    if is_last:
        return maps[-1]
    joins = [place for place, each in enumerate(maps) if each.joins]
    if joins:
        behind = itertools.takewhile(
            lambda each: _is_activation(each.step.operation), maps[joins[-1] + 1 :]
        )
        return [maps[joins[-1]], *behind][-1]
    maps = [each for each in maps if each.reach == maps[-1].reach]
    narrowed = False
    for before, after in itertools.pairwise(maps):
        narrowed |= after.channels < before.channels
        if narrowed and after.channels > before.channels:
            return before
    return maps[-1]


def _is_activation(operation):
    return isinstance(operation, ACTIVATIONS) or private_name(operation) in OPERATIONS
