"""A model split at a layer: features up to it, and from them to a class's score."""

import dataclasses
import difflib
from collections.abc import Callable
from typing import Any, Literal

import keras

from keras_attn.explain.maps import checked_format
from keras_attn.graph.flat import FlatGraph, run

# Output with the displacements by which a model moved its features; maps of features
# that were moved do not lie over the image.
FIELDS = "fields"
# Activations from logits to probabilities; explanations are of the logits.
TO_PROBABILITIES = ("softmax", "sigmoid", "log_softmax", "log_sigmoid")


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
    """

    # Tensors of the backend, which have no common class.
    features: Any
    logits: Any
    logits_of: Callable
    images: Any
    path: str
    is_half: bool


def split(model, inputs, layer, output, image_input, data_format):
    """Runs a model once, and keeps the inputs of its rest.

    Args:
        model: Functional or `Sequential` model, also of other models.
        inputs: Its inputs.
        layer, output, image_input, data_format: See `grad_cam`.

    Returns:
        `Split`.

    Raises:
        ValueError: If there is no such layer, output or input, or the model has no
            graph.
    """
    graph = FlatGraph(model)
    score, bare = without_probabilities(graph, output_key(graph, output))
    if bare:
        leave_out_activation(graph, score)
    image_key = graph.inputs[image_index(graph, image_input)]
    steps = graph.steps_to([score], graph.inputs)
    path, features = _layer(graph, layer, steps, data_format)
    head = _behind(features, steps)
    produced = {key for step in head for key in step.results}
    beside = {key for step in head for _, key in step.sources} | {score}
    beside -= produced | {features}
    wanted = [features, score, *beside]
    values = graph.input_values(inputs)
    images = values[image_key]
    found = run(graph.steps_to(wanted, graph.inputs), values, wanted)
    fixed = {key: found[key] for key in beside}

    def logits_of(features_now):
        values = fixed | {features: features_now}
        return run(head, values, [score])[score]

    is_half = any(
        getattr(step.operation, "compute_dtype", None) == "float16" for step in head
    )
    return Split(found[features], found[score], logits_of, images, path, is_half)


def last_map(
    model: keras.Model,
    output: str | int | None = None,
    data_format: Literal["channels_last", "channels_first"] | None = None,
):
    """The layer whose features `grad_cam` takes where none is named.

    It is the last layer with the output `(batch, rows, columns, channels)` that the
    scores are computed from, also of a model inside the model. In a model with an
    output `fields`, by which it moved its features, it is the last one that these
    fields are computed from as well: behind the warp, maps do not lie over the image.

    Args:
        model, output, data_format: See `grad_cam`.

    Returns:
        The layer's name; of a layer of a model inside the model, its path, such as
        `"backbone/conv5_block3_out"`.

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
    graph = FlatGraph(model)
    score, _ = without_probabilities(graph, output_key(graph, output))
    steps = graph.steps_to([score], graph.inputs)
    return _last_map(graph, steps, checked_format(data_format))[0]


# ---- outputs and inputs --------------------------------------------------------------


def output_key(graph, output):
    """The key of the scores `(batch, classes)` among the outputs of a model.

    Args:
        graph: `FlatGraph`.
        output: Name or index of an output, or `None`: `logits`, or the only one.
    """
    struct = graph.function.output
    if isinstance(struct, dict):
        names = [str(name) for name in sorted(struct)]
    else:
        names = list(graph.function.output_names)
    if len(names) != len(graph.outputs):
        names = [str(index) for index in range(len(graph.outputs))]
    if output is None and (len(names) == 1 or "logits" in names):
        output = "logits" if "logits" in names else names[0]
    if isinstance(output, str) and names.count(output) == 1:
        output = names.index(output)
    if not isinstance(output, int) or not -len(names) <= output < len(names):
        raise ValueError(
            "Expected `output` to be the name or index of an output of "
            f"{graph.function.name!r}, one of {names}. Received: output={output!r}"
        )
    key = graph.outputs[output]
    if len(graph.tensors[key].shape) != 2:
        raise ValueError(
            "Expected an output (batch, classes). Received: "
            f"{names[output]!r} of shape {graph.tensors[key].shape}"
        )
    return key


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


def without_probabilities(graph, key):
    """The logits, where an output is their softmax or sigmoid.

    Returns:
        The key of the logits, and whether the layer that computes it has to leave its
        activation out for that.
    """
    at = key
    while (step := producer(graph, at)) is not None and len(step.results) == 1:
        kind = type(step.operation).__name__
        activation = _activation(step)
        if kind in ("Softmax", "Sigmoid", "LogSoftmax", "LogSigmoid"):
            return step.sources[0][1], False
        if activation in TO_PROBABILITIES:
            is_alone = kind == "Activation"
            return (step.sources[0][1], False) if is_alone else (at, True)
        if kind not in ("Identity", "Dropout") and (kind, activation) != (
            "Activation",
            "linear",
        ):
            break
        at = step.sources[0][1]
    return key, False


def producer(graph, key):
    """The step that computes a key; `None` for an input."""
    return next((step for step in graph.steps if key in step.results), None)


def _activation(step):
    activation = getattr(step.operation, "activation", None)
    return getattr(activation, "__name__", None)


def leave_out_activation(graph, key):
    """Makes the layer that computes a key do so without its activation."""
    step = producer(graph, key)
    layer = step.operation

    def call(*args, **kwargs):
        activation = layer.activation
        layer.activation = keras.activations.linear
        try:
            return layer(*args, **kwargs)
        finally:
            layer.activation = activation

    graph.steps[graph.steps.index(step)] = dataclasses.replace(step, function=call)


# ---- layers --------------------------------------------------------------------------


def _layer(graph, layer, steps, data_format):
    """Path and key of a layer's features."""
    if layer is None:
        return _last_map(graph, steps, data_format)
    path = _path(graph, str(layer))
    keys = graph.named[path]
    shapes = [graph.tensors[key].shape for key in keys]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        found = shapes[0] if len(shapes) == 1 else shapes
        raise ValueError(
            "Expected a layer with the output (batch, rows, columns, channels). "
            f"Received: layer={layer!r} with {found}"
        )
    return path, keys[0]


def _path(graph, name):
    """The path that a name means: a path, or the end of only one."""
    if name in graph.named:
        return name
    ends = [path for path in graph.named if path.endswith(f"/{name}")]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise ValueError(
            f"Expected `layer` to be one layer of {graph.function.name!r}. "
            f"Received: layer={name!r}, which may be any of {ends}"
        )
    nearest = difflib.get_close_matches(name, graph.named, 1, cutoff=0.0)[0]
    raise ValueError(
        f"Expected `layer` to be a layer of {graph.function.name!r}; those of models "
        "inside it are named such as 'backbone/last_layer'. "
        f"Received: layer={name!r}; the nearest is {nearest!r}."
    )


def _last_map(graph, steps, data_format):
    """Path and key of the last map that the score and any fields are computed from."""
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
            return step.path, step.results[0]
    raise ValueError(
        "Expected a model with feature maps (batch, rows, columns, channels). "
        f"Received: {graph.function.name!r}, without any before its scores"
    )


def _behind(features, steps):
    """The steps that depend on some features."""
    reached, behind = {features}, []
    for step in steps:
        if any(key in reached for _, key in step.sources):
            behind.append(step)
            reached.update(step.results)
    return behind
