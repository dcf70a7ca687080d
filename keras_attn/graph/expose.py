"""The logits of a model that returns probabilities, as an output of their own."""

import keras
import numpy as np
from keras import tree

from keras_attn.graph.head import LIKE, head_of, wrapped
from keras_attn.graph.insert import copy_state_of, view_of


def with_logits(graph, model, key, inputs, entered):
    """The outputs of a model on other inputs, and the logits behind one of them.

    Its layers are shared, but for the one whose activation is taken apart from it; the
    model itself stays as it is.

    Args:
        graph: `FlatGraph` of the model.
        model: Functional or `Sequential` model.
        key: Key of the output in the graph.
        inputs: Inputs of the new model, in the model's structure.
        entered: What the model takes, computed from them, in the same structure.

    Returns:
        The model's outputs in its structure, the logits, and the `Head`. The logits
        are `None` where the end of the model is unknown, or called several times.
    """
    head = head_of(graph, key)
    path = head.path if head.kind not in (None, "logits", "log_softmax") else None
    replaced = dict(
        zip(map(id, tree.flatten(inputs)), tree.flatten(entered), strict=True)
    )
    outputs, found = _exposed(model, path, head, inputs, replaced)
    return outputs, found[0] if len(found) == 1 else None, head


def _exposed(model, path, head, inputs, replaced):
    """The outputs of a model on inputs, and the logits at a path; none without it."""
    name, _, rest = path.partition("/") if path else (None, "", "")
    found, copies = [], {}

    def clone(layer):
        if layer.name != name or not (rest or head.bare):
            return layer
        if id(layer) not in copies:
            copies[id(layer)] = _inner(layer, rest, head) if rest else _linear(layer)
        return copies[id(layer)]

    def call(layer, *args, **kwargs):
        args, kwargs = tree.map_structure(
            lambda tensor: replaced.get(id(tensor), tensor), (args, kwargs)
        )
        result = layer(*args, **kwargs)
        if layer.name != name:
            return result
        if rest:
            found.append(result["logits"])
            return result["scores"]
        if not head.bare:
            found.extend(tree.flatten(args)[:1])
            return result
        found.append(result)
        original = next(each for each in view.layers if each.name == name)
        copy_state_of(original, layer)
        layer.trainable = original.trainable
        function = _activation(wrapped(original).activation, head.kind, result)
        end = keras.layers.Activation(
            function, dtype=original.dtype_policy, name=f"{name}_{head.kind}"
        )
        return end(result)

    view = view_of(model)
    outputs = keras.models.clone_model(view, inputs, clone, call).output
    return tree.map_structure(lambda x: replaced.get(id(x), x), outputs), found


def _inner(model, path, head):
    """A model inside the model, with the logits beside its own outputs."""
    inputs = view_of(model).input
    outputs, logits = _exposed(model, path, head, inputs, {})
    outer = {"scores": outputs, "logits": logits[0]}
    copy = keras.Model(inputs, outer, name=model.name)
    copy.trainable = model.trainable
    return copy


def _linear(layer):
    """A copy of a layer without its activation, and without its state."""
    inner = wrapped(layer)
    activation = inner.activation
    inner.activation = keras.activations.linear
    try:
        return type(layer).from_config(layer.get_config())
    finally:
        inner.activation = activation


def _activation(function, kind, tensor):
    """Keras's own function where it computes the same, since that can be saved."""
    own = LIKE[kind]
    given = np.sin(np.arange(4 * tensor.shape[-1])).reshape(4, -1)
    given = keras.ops.convert_to_tensor(given, tensor.dtype)
    values = [keras.ops.convert_to_numpy(each(given)) for each in (own, function)]
    return own if np.array_equal(*values) else function
