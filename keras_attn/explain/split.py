"""A model split at a layer: features up to it, and from them to a class's score."""

import dataclasses
import difflib
from collections.abc import Callable
from typing import Any, Literal

import keras
from keras import ops

from keras_attn.explain.maps import checked_format, image_size
from keras_attn.graph.flat import FlatGraph, run
from keras_attn.graph.head import head_of, leave_out_activation, output_key, producer
from keras_attn.graph.inside import (
    before_attention,
    divide_at,
    inner_shapes,
    patches_of,
    watched_steps,
)
from keras_attn.layers.branch_decision import BranchDecision

# Output with the displacements by which a model moved its features; maps of features
# that were moved do not lie over the image.
FIELDS = "fields"
# The images as features of their own.
IMAGES = object()


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Features of images, their logits, and the function from one to the other.

    Args:
        features: The layer's output for the images.
        logits: `(batch, classes)`.
        logits_of: Function from features to logits; all else that reaches the logits
            stays as it is for the images.
        images: The images, as the model takes them.
        path: The layer.
        is_half: Whether a layer behind the features computes in float16.
        float8: Names of the layers behind the features that are quantised to float8.
        to_map: Function from what has the features' shape to `(batch, rows, columns,
            channels)`; of tokens, the patches alone.
        is_alone: Whether the logits follow from the features alone, of any batch.
    """

    # Tensors of the backend, which have no common class.
    features: Any
    logits: Any
    logits_of: Callable
    images: Any
    path: str
    is_half: bool
    float8: list
    to_map: Callable
    is_alone: bool


def split(model, inputs, layer, output, image_input, data_format, any_rank=False):
    """Runs a model once, and keeps the inputs of its rest.

    Args:
        model: Functional or `Sequential` model, also of other models.
        inputs: Its inputs.
        layer, output, image_input, data_format: See `grad_cam`; the layer `IMAGES` is
            the input itself.
        any_rank: Whether scores may be others than `(batch, classes)`.

    Returns:
        `Split`.

    Raises:
        ValueError: If there is no such layer, output or input, or the model has no
            graph.
    """
    graph, score = graph_and_score(model, output, any_rank)
    return _split(graph, score, inputs, layer, image_input, data_format)


def splits_of_branches(model, inputs, output, image_input, data_format):
    """A `Split` for every branch, of a model whose branches decide on the scores.

    Returns:
        List of `Split`, or `None` where no `BranchDecision` gives the scores.
    """
    graph, score = graph_and_score(model, output)
    step = producer(graph, score)
    if step is None or not isinstance(step.operation, BranchDecision):
        return None
    return [
        _split(graph, key, inputs, None, image_input, data_format)
        for _, key in step.sources
    ]


def graph_and_score(model, output, any_rank=False):
    """`FlatGraph` of a model and the key of the logits in it."""
    graph = FlatGraph(model)
    head = head_of(graph, output_key(graph, output, any_rank))
    if head.bare:
        leave_out_activation(graph, head.key)
    return graph, head.key


def _split(graph, score, inputs, layer, image_input, data_format):
    image_key = graph.inputs[image_index(graph, image_input)]
    values = graph.input_values(inputs)
    images = values[image_key]
    path, features = _layer(graph, layer, score, values, image_key, data_format)
    head = _behind(features, graph.steps_to([score], graph.inputs))
    produced = {key for step in head for key in step.results}
    beside = {key for step in head for _, key in step.sources} | {score}
    beside -= produced | {features}
    wanted = [features, score, *beside]
    maps, is_first = [], data_format == "channels_first"
    steps = watched_steps(
        graph.steps_to(wanted, graph.inputs), maps=maps, is_first=is_first
    )
    found = run(steps, values, wanted)
    fixed = {key: found[key] for key in beside}

    def logits_of(features_now):
        values = fixed | {features: features_now}
        return run(head, values, [score])[score]

    layers = [step.operation for step in head]
    is_half = any(getattr(each, "compute_dtype", 0) == "float16" for each in layers)
    float8 = [
        each.name
        for each in layers
        if getattr(each, "quantization_mode", None) == "float8"
    ]
    to_map = _to_map(found[features], maps, images, path, data_format)
    values = found[features], found[score], logits_of, images, path
    is_alone = not beside and graph.tensors[image_key].shape[0] is None
    return Split(*values, is_half, float8, to_map, is_alone)


def _to_map(features, maps, images, path, data_format):
    """See `Split`."""
    if len(features.shape) == 4:
        if data_format == "channels_first":
            return lambda tensor: ops.moveaxis(tensor, 1, -1)
        return lambda tensor: tensor
    size = image_size(images, data_format)
    to_map = patches_of(features, maps, size)
    if to_map is None:
        raise ValueError(
            "Expected a layer whose tokens contain a grid of patches. Received: "
            f"layer={path!r} with {tuple(features.shape)}, and images of {size[0]} x "
            f"{size[1]} pixels"
        )
    return to_map


def last_map(
    model: keras.Model,
    output: str | int | None = None,
    data_format: Literal["channels_last", "channels_first"] | None = None,
    image_input: str | int | None = None,
):
    """The layer whose features `grad_cam` takes where none is named.

    It is the last layer with the output `(batch, rows, columns, channels)` that the
    scores are computed from, also of a model inside the model, and that is computed
    from the images. Of a transformer of images of known size it is the one before its
    last attention, with the output `(batch, tokens, channels)`. In a model with an
    output `fields`, by which it moved its features, it is the last one that these
    fields are computed from as well: behind the warp, maps do not lie over the image.

    Args:
        model, output, data_format, image_input: See `grad_cam`. `None` for the images
            of a model that takes several: any of them.

    Returns:
        The layer's name; of a layer of a model inside the model, its path, such as
        `"backbone/conv5_block3_out"`; of a layer that is called several times, the
        call, such as `"conv/0"`.

    Raises:
        ValueError: If the model is neither functional nor `Sequential`, or has no such
            layer.

    Example:

    >>> model = keras.applications.MobileNetV2(
    ...     input_shape=(64, 96, 3), weights=None, classes=10
    ... )
    >>> last_map(model)
    'out_relu'
    """
    graph, score = graph_and_score(model, output)
    steps = graph.steps_to([score], graph.inputs)
    if image_input is not None:
        steps = _behind(graph.inputs[image_index(graph, image_input)], steps)
    inputs = [graph.tensors[key] for key in graph.inputs]
    values = None
    if None not in [size for each in inputs for size in each.shape[1:]]:
        black = [ops.zeros((1, *each.shape[1:]), each.dtype) for each in inputs]
        values = dict(zip(graph.inputs, black, strict=True))
    return _last(graph, steps, score, values, checked_format(data_format))


def map_cells(model, output=None, data_format=None, image_input=None):
    """`(rows, columns)` of the last map that the scores are computed from.

    `None` for a model without a graph or a map, or with a map of unknown size.
    """
    try:
        graph, score = graph_and_score(model, output, any_rank=True)
        image_key = graph.inputs[image_index(graph, image_input)]
    except ValueError:
        return None
    steps = _behind(image_key, graph.steps_to([score], graph.inputs))
    data_format = checked_format(data_format)
    _, key = _last_map(graph, steps, data_format)
    shape = (None,) if key is None else tuple(graph.tensors[key].shape[1:])
    cells = shape[:2] if data_format == "channels_last" else shape[1:]
    return None if None in cells else cells


# ---- inputs --------------------------------------------------------------------------


def image_index(graph, image_input):
    """Position of the images among the flat inputs.

    Args:
        graph: `FlatGraph`.
        image_input: Its name or index, or `None`: the only one with four dimensions.
    """
    tensors = [graph.tensors[key] for key in graph.inputs]
    names = [tensor.name for tensor in tensors]
    images = [i for i, tensor in enumerate(tensors) if len(tensor.shape) == 4]
    if image_input is None and len(images) == 1:
        return images[0]
    index = names.index(image_input) if image_input in names else image_input
    if not isinstance(index, int) or index % len(names) not in images:
        raise ValueError(
            "Expected `image_input` to be the name or index of an input "
            "(batch, height, width, channels), one of "
            f"{[names[i] for i in images]}. Received: image_input={image_input!r}"
        )
    return index % len(names)


# ---- layers --------------------------------------------------------------------------


def _layer(graph, layer, score, values, image_key, data_format):
    """Path and key of a layer's features, which the images reach."""
    steps = graph.steps_to([score], graph.inputs)
    if layer is IMAGES:
        return "images", image_key
    if layer is None:
        behind = _behind(image_key, steps)
        layer = _last(graph, behind, score, values, data_format)
    path = _path(graph, str(layer), score, values)
    calls = graph.calls.get(path, [path])[::-1]
    # On the way to the scores, or beside it, where no feature matters.
    for way in (graph.steps_to([score], graph.inputs), graph.steps):
        reached = {key for step in _behind(image_key, way) for key in step.results}
        found = [call for call in calls if reached & {*graph.named[call]}]
        if found:
            break
    if not found and image_key not in graph.named[path]:
        raise ValueError(
            "Expected a layer that the images reach. Received: "
            f"layer={layer!r}, which these images do not reach"
        )
    path = (found or calls)[0]
    keys = graph.named[path]
    shapes = [graph.tensors[key].shape for key in keys]
    if len(shapes) != 1 or len(shapes[0]) not in (3, 4):
        found = shapes[0] if len(shapes) == 1 else shapes
        raise ValueError(
            "Expected a layer with the output (batch, rows, columns, channels), or "
            f"(batch, tokens, channels). Received: layer={layer!r} with {found}"
        )
    return path, keys[0]


def _last(graph, steps, score, values, data_format):
    """Path of the features to explain: the last tokens or the last map.

    Args:
        steps: Those from the images to the scores.
        values: Inputs by their keys; `None` where the model cannot be called.
    """
    path, key = _last_map(graph, steps, data_format)
    behind = [] if key is None else _behind(key, steps)
    results = [graph.tensors[result] for step in behind for result in step.results]
    may_attend = key is None or any(len(each.shape) == 3 for each in results)
    tokens = None
    if values is not None and may_attend:
        tokens = before_attention(
            graph.steps_to([score], graph.inputs), values, [score]
        )
    if (tokens or path) is None:
        raise ValueError(
            "Expected a model with feature maps (batch, rows, columns, channels), or "
            f"attention among tokens. Received: {graph.function.name!r}, without any "
            "before its scores"
        )
    return tokens or path


def _path(graph, name, score, values):
    """The path that a name means: a path, or the end of only one.

    A layer that only the call of another shows becomes one of the graph's.
    """
    if name in graph.named:
        return name
    ends = [path for path in graph.named if path.endswith(f"/{name}")]
    if len(ends) == 1:
        return ends[0]
    inside = {}
    if not ends:
        steps = graph.steps_to([score], graph.inputs)
        inside = inner_shapes(steps, values, [score])
        ends = [path for path in inside if f"/{path}".endswith(f"/{name}")]
        if len(ends) == 1:
            divide_at(graph, ends[0], inside[ends[0]], steps)
            return ends[0]
    if ends:
        raise ValueError(
            f"Expected `layer` to be one layer of {graph.function.name!r}. "
            f"Received: layer={name!r}, which may be any of {ends}"
        )
    nearest = difflib.get_close_matches(name, [*graph.named, *inside], 1, 0.0)[0]
    raise ValueError(
        f"Expected `layer` to be a layer of {graph.function.name!r}; those of models "
        "inside it are named such as 'backbone/last_layer'. "
        f"Received: layer={name!r}; the nearest is {nearest!r}."
    )


def _last_map(graph, steps, data_format):
    """Path and key of the last map that the score and any fields are computed from.

    `None` for both where there is no map.
    """
    unmoved = steps
    if FIELDS in graph.returned:
        of_fields = set(graph.steps_to(graph.returned[FIELDS], graph.inputs))
        unmoved = [step for step in steps if step in of_fields]
    for step in reversed(unmoved):
        shape = tuple(graph.tensors[step.results[0]].shape)
        if step.operation is None or len(step.results) != 1 or len(shape) != 4:
            continue
        # Of pooled features one cell is left.
        cells = shape[1:3] if data_format == "channels_last" else shape[2:]
        if cells != (1, 1):
            return _call_path(graph, step), step.results[0]
    return None, None


def _call_path(graph, step):
    """The path of a step; where its layer is called several times, that of the call."""
    calls = graph.calls[step.path]
    return next(call for call in calls if graph.named[call] == step.results)


def _behind(features, steps):
    """The steps that depend on some features."""
    reached, behind = {features}, []
    for step in steps:
        if any(key in reached for _, key in step.sources):
            behind.append(step)
            reached.update(step.results)
    return behind
