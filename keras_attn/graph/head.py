"""The end of a classifier: which scores it gives, and the logits that they come from.

What an activation is follows from what it does to numbers, not from its name, so that
`"softmax"`, `tf.nn.softmax`, a lambda and a layer of the user's count equally.
"""

import dataclasses
import warnings

import keras
import numpy as np
from keras import ops

from keras_attn.graph.flat import FlatGraph

# Kind of `Head` -> function of Keras that does the same.
LIKE = {
    "softmax": keras.activations.softmax,
    "sigmoid": keras.activations.sigmoid,
    "log_softmax": keras.activations.log_softmax,
    "log_sigmoid": keras.activations.log_sigmoid,
}
# Errors of the backends while they trace, where no number is known.
TRACING = (NotImplementedError, RuntimeError, TypeError, ValueError)


@dataclasses.dataclass(frozen=True)
class Head:
    """The end of a classifier.

    Args:
        kind: What makes scores of logits: `"softmax"`, `"sigmoid"`, `"log_softmax"`
            or `"log_sigmoid"`; `"logits"` for a layer with weights and no activation;
            `None`: unknown.
        scores: Their number; `None` where the model leaves it open.
        key: Key of the logits in the `FlatGraph`; of the scores for an unknown end.
        bare: Whether the layer that computes the logits has to leave its activation
            out for that.
        path: Path of the step that makes the scores of the logits; of the one that
            computes them where there is no activation; `None` for an unknown end.
    """

    kind: str | None
    scores: int | None
    key: int
    bare: bool
    path: str | None = None

    @property
    def gives_probabilities(self):
        return self.kind in ("softmax", "sigmoid")


def head_of(graph, key):
    """The `Head` of one output.

    Args:
        graph: `FlatGraph`.
        key: Key of the output, see `output_key`.
    """
    scores, at = graph.tensors[key].shape[-1], key
    while (step := producer(graph, at)) is not None:
        if step.operation is None:
            # The way into a model inside the model.
            at = step.sources[step.results.index(at)][1]
            continue
        does, has_weights = behaviour(graph, step)
        if does == "identity" and not has_weights:
            at = step.sources[0][1]
            continue
        if does is None:
            break
        if does == "identity":
            return Head("logits", scores, at, False, step.path)
        logits = at if has_weights else step.sources[0][1]
        return Head(does, scores, logits, has_weights, step.path)
    return Head(None, scores, key, False)


def head_of_model(model):
    """The `Head` of a model's `logits` or only output; `None` without any graph."""
    try:
        graph = FlatGraph(model)
        return head_of(graph, output_key(graph, None))
    except ValueError:
        return None


def has_labels(model):
    """`True` for `logits` of labels that do not exclude each other.

    The output `probabilities` beside them decides, by what makes it.
    """
    output = getattr(model, "output", None)
    if not isinstance(output, dict) or "probabilities" not in output:
        return False
    graph = FlatGraph(model)
    return head_of(graph, output_key(graph, "probabilities")).kind == "sigmoid"


def behaviour(graph, step):
    """The effect of the activation of a step.

    Returns:
        `"identity"`, a kind of `Head` or `None`, and whether the step has weights in
        front of its activation.
    """
    layer = wrapped(step.operation)
    if getattr(step.operation, "weights", ()):
        function = getattr(layer, "activation", None)
        if not callable(function) or len(step.results) != 1:
            return None, True
        tensor = graph.tensors[step.results[0]]
        return effect(function, tensor), True
    if len(step.sources) != 1 or len(step.results) != 1:
        return None, False
    key = step.sources[0][1]
    return effect(lambda x: step({key: x})[0], graph.tensors[key]), False


def wrapped(layer):
    """The layer inside a wrapper such as `SpectralNormalization`, or the layer."""
    return layer.layer if isinstance(layer, keras.layers.Wrapper) else layer


def without_activation(layer):
    """The call of a layer, as it computes, without its activation."""
    inner = wrapped(layer)

    def call(*args, **kwargs):
        activation = inner.activation
        inner.activation = keras.activations.linear
        try:
            return layer(*args, **kwargs)
        finally:
            inner.activation = activation

    return call


def linear_part(layer):
    """The function `x -> x W` of a `Dense` layer or convolution, and its bias.

    The layer is called rather than its kernel read: quantised layers, those with LoRA
    and those that normalise their weights keep something else in it.

    Args:
        layer: Layer or wrapper of one.

    Returns:
        Function from a tensor to `(x W, b)`, of which `b` has the batch size 1.
    """
    plain = without_activation(layer)

    def call(inputs):
        bias = plain(ops.zeros_like(inputs[:1]), training=False)
        return plain(inputs, training=False) - bias, bias

    return call


def leave_out_activation(graph, key):
    """Makes the layer that computes a key do so without its activation."""
    step = producer(graph, key)
    call = without_activation(step.operation)
    graph.steps[graph.steps.index(step)] = dataclasses.replace(step, function=call)


def producer(graph, key):
    """The step that computes a key; `None` for an input."""
    return next((step for step in graph.steps if key in step.results), None)


def output_key(graph, output, any_rank=False):
    """The key of the scores `(batch, classes)` among the outputs of a model.

    Args:
        graph: `FlatGraph`.
        output: Name or index of an output, or `None`: `logits`, or the only one.
        any_rank: Whether scores may have any other shape.
    """
    names = output_names(graph)
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
    if not any_rank and len(graph.tensors[key].shape) != 2:
        raise ValueError(
            "Expected an output (batch, classes). Received: "
            f"{names[output]!r} of shape {graph.tensors[key].shape}"
        )
    return key


def output_names(graph):
    """Names of the outputs of a model, in their order."""
    struct = graph.function.output
    if isinstance(struct, dict):
        names = [str(name) for name in sorted(struct)]
    else:
        names = list(graph.function.output_names)
    if len(names) != len(graph.outputs):
        names = [str(index) for index in range(len(graph.outputs))]
    return names


# ---- numbers -------------------------------------------------------------------------


def effect(function, tensor):
    """The effect of a function on a tensor of this shape, see `behaviour`."""
    if not keras.backend.is_float_dtype(tensor.dtype) or len(tensor.shape) < 2:
        return None
    shape = [size or 3 for size in tensor.shape]
    shape[0] = tensor.shape[0] or 4
    # Of both signs, and such that no two rows are the same.
    given = 0.3 + 2 * np.sin(1 + 1.7 * np.arange(np.prod(shape)))
    given = given.reshape(shape).astype("float32")
    try:
        with warnings.catch_warnings():
            # Keras warns of a softmax over one score.
            warnings.simplefilter("ignore")
            found = function(ops.convert_to_tensor(given, tensor.dtype))
        found = ops.convert_to_numpy(ops.cast(found, "float32"))
    except TRACING:
        return None
    if found.size != given.size:
        return None
    rows = -1, shape[-1]
    return _kind(given.reshape(rows).astype("float64"), found.reshape(rows))


def _kind(given, found):
    """The kind of a function that makes one array `(rows, scores)` of another."""
    if np.allclose(given, found, atol=0.02):
        return "identity"
    for prefix, share in (("", found.astype("float64")), ("log_", np.exp(found))):
        if not (np.all(share > 0) and np.all(share <= 1)):
            continue
        if np.allclose(share.sum(axis=1), 1, atol=0.02):
            scores = np.log(share)
            centred = [
                each - each.mean(axis=1, keepdims=True) for each in (given, scores)
            ]
            if given.shape[1] == 1 or _proportional(*centred):
                return f"{prefix}softmax"
        if np.all(share < 1) and _proportional(given, np.log(share / (1 - share))):
            return f"{prefix}sigmoid"
    return None


def _proportional(given, found):
    """`True` if one array is a positive multiple of the other, its temperature."""
    slope = np.sum(given * found) / np.sum(given**2)
    return slope > 0 and np.allclose(found, slope * given, atol=0.03 * max(slope, 1))
