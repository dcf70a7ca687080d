"""Networks for inference alone, without batch normalisation behind convolutions."""

import keras
import numpy as np
from keras import layers

from keras_attn.graph.flat import FlatGraph
from keras_attn.graph.insert import copy_state_of
from keras_attn.graph.keras_graph import layers_of

# Not their subclasses, which may compute something else.
CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D)


def folded(model: keras.Model) -> keras.Model:
    """A frozen copy of a model for inference, with fewer passes over its maps.

    At inference batch normalisation is a linear map of each channel, so that it goes
    into kernel and bias of the convolution before it, where nothing else takes that
    convolution's output. Results are the same but for rounding. Models inside the model
    are taken apart into their layers.

    Args:
        model: Functional or `Sequential` model; it stays as it is.

    Returns:
        Functional model with the same inputs and outputs, not to be trained.

    Raises:
        ValueError: If the model has no graph.

    Example:

    >>> model = resnext((1, 1, 1, 1), groups=1, group_width=8, num_classes=10)
    >>> fast = folded(model)
    >>> len(model.layers) - len(fast.layers)
    17
    """
    graph = FlatGraph(model)
    steps = graph.steps_to(graph.outputs, graph.inputs)
    pairs, copies, names = _pairs(steps, graph.outputs), {}, set()
    inputs = [_input(graph.tensors[key], names) for key in graph.inputs]
    values = dict(zip(graph.inputs, inputs, strict=True))
    for step in steps:
        key = step.results[0]
        if key in pairs:
            normalization = pairs[key]
            # Nothing else takes what is between the two.
            values[key] = values[normalization.results[0]] = _folded(
                step.operation, normalization.operation, values, step, names
            )
        elif key not in values:
            # As the model calls it: calls that name `training` cannot be nested.
            known = {tensor: values[each] for tensor, each in step.sources}
            args, kwargs = step.arguments.fill_in(known)
            found = _copied(step, copies, names)(*args, **kwargs)
            values |= zip(step.results, keras.tree.flatten(found), strict=True)
    for old, new in copies.values():
        for mine, its in zip(layers_of(old, True), layers_of(new, True), strict=True):
            copy_state_of(mine, its)
    outputs = [values[key] for key in graph.outputs]
    fast = keras.Model(
        keras.tree.pack_sequence_as(graph.function.input, inputs),
        keras.tree.pack_sequence_as(graph.function.output, outputs),
        name=model.name,
    )
    fast.trainable = False
    return fast


def _pairs(steps, outputs):
    """Dict from a convolution's result to the normalisation that alone takes it."""
    users = {}
    for step in steps:
        for _, key in step.sources:
            users.setdefault(key, []).append(step)
    return {
        step.results[0]: users[step.results[0]][0]
        for step in steps
        if _is_linear(step.operation)
        and step.results[0] not in outputs
        and len(users.get(step.results[0], ())) == 1
        and _normalizes_channels(users[step.results[0]][0].operation)
    }


def _is_linear(operation):
    return (
        type(operation) in CONVOLUTIONS
        and operation.activation is keras.activations.linear
        and operation.data_format == "channels_last"
        and getattr(operation, "quantization_mode", None) is None
    )


def _normalizes_channels(operation):
    return type(operation) is layers.BatchNormalization and operation.axis in (-1, 3)


def _folded(convolution, normalization, values, step, names):
    """The output of a convolution with the normalisation in its weights."""
    found = {
        name: np.asarray(keras.ops.convert_to_numpy(value), "float64")
        for name, value in vars(normalization).items()
        if name in ("gamma", "beta", "moving_mean", "moving_variance")
        and value is not None
    }
    scale = found.get("gamma", 1.0) / np.sqrt(
        found["moving_variance"] + normalization.epsilon
    )
    kernel, *bias = convolution.get_weights()
    shift = found.get("beta", 0.0) + (sum(bias) - found["moving_mean"]) * scale
    if isinstance(convolution, layers.DepthwiseConv2D):
        scale = scale.reshape(kernel.shape[-2:])
    name = _free(convolution.name, names)
    config = {**convolution.get_config(), "use_bias": True, "name": name}
    layer = type(convolution).from_config(config)
    output = layer(values[step.sources[0][1]])
    layer.set_weights([kernel * scale, shift])
    return output


def _copied(step, copies, names):
    """The function of a step, of a layer a copy; one without a state stays."""
    old = step.operation
    if not isinstance(old, keras.Layer) or type(old) is layers.Lambda:
        return step.function
    if id(old) not in copies:
        config = {**old.get_config(), "name": _free(old.name, names)}
        copies[id(old)] = old, type(old).from_config(config)
    return copies[id(old)][1]


def _input(tensor, names):
    return keras.Input(
        batch_shape=tensor.shape, dtype=tensor.dtype, name=_free(tensor.name, names)
    )


def _free(name, names):
    """A name that no other layer has; those of several models may be the same."""
    found, count = name, 1
    while found in names:
        count += 1
        found = f"{name}_{count}"
    names.add(found)
    return found
