"""Adapter for what Keras keeps private: the one file to change when Keras does.

A node is one call of a layer or operation. It has `operation`, `input_tensors`,
`output_tensors` and `arguments`.
"""

import contextlib
import contextvars
import functools
import threading

import keras
from keras.src import backend
from keras.src.backend.common import global_state

# Object and name of each function that `watched` replaces -> the watch's method.
_WATCHABLE = {
    (keras.Layer, "__call__"): "layer",
    (backend.nn, "softmax"): "softmax",
    (backend.nn, "dot_product_attention"): "attention",
}
_WATCH = contextvars.ContextVar("watch", default=None)
_WATCHING, _ORIGINALS = threading.Lock(), []


def producer(tensor):
    """The operation that a symbolic tensor comes from."""
    return tensor._keras_history.operation


def node_of(tensor):
    """The node that a symbolic tensor comes from."""
    operation, index, _ = tensor._keras_history
    return operation._inbound_nodes[index]


def call_count(operation):
    """Number of times an operation was called on symbolic tensors."""
    return len(getattr(operation, "_inbound_nodes", ()))


def call_index(node):
    """Position of a call among all calls of its operation, in the order of calling."""
    return [each is node for each in node.operation._inbound_nodes].index(True)


def graph_of(operation):
    """The graph of a functional or built `Sequential` model, or `None`."""
    if isinstance(operation, keras.Sequential):
        return operation._functional
    return operation if hasattr(operation, "_nodes_by_depth") else None


def nodes_of(graph):
    """The nodes of a graph in an order in which they can run, without its inputs."""
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if node.operation and not node.is_input:
                yield node


def standardized(graph, inputs):
    """Inputs as a graph passes them on: flat, of its ranks and dtypes."""
    return graph._standardize_inputs(inputs)


def layers_of(layer, include_self=False, recursive=True):
    """All layers inside a layer or model, at any depth."""
    return list(layer._flatten_layers(include_self=include_self, recursive=recursive))


def own_layers(model):
    """The layers of a model as it keeps them, `InputLayer` included."""
    return model._layers


def private_name(operation):
    """Name of a class that Keras does not export, or `None` for any other.

    Operations on symbolic tensors, such as `x + y`, and some layers of
    `keras.applications` are of such classes.

    Returns:
        The package and the class, such as `"ops.Add"` or `"applications.LayerScale"`.
    """
    name = type(operation).__module__.split(".")
    if name[:2] != ["keras", "src"] or name[2] not in ("ops", "applications"):
        return None
    return f"{name[2]}.{type(operation).__name__}"


@contextlib.contextmanager
def unweighted():
    """Models built inside have shapes and counts but no values, and are quick to build.

    As a decorator of a test: `@unweighted()`.
    """
    name = "uninitialized_variables"
    before = list(global_state.get_global_attribute(name, []))
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        # Else the next scope that ends would give them values.
        global_state.set_global_attribute(name, before)


@contextlib.contextmanager
def traced_once():
    """`ExportArchive.write_out` traces endpoints alone.

    Else it traces every model again, and each one inside, for a signature that only
    `tf.saved_model.save` of a model asks for.
    """
    keras.Model._default_save_signature = None
    try:
        yield
    finally:
        del keras.Model._default_save_signature


@contextlib.contextmanager
def watched(watch):
    """Calls of layers, softmax and attention in this thread go through a watch.

    Every attention of Keras ends in one of the two functions of the backend, whatever
    layer it is in; models are neither changed nor copied. A watch does not see what it
    calls itself but for layers.

    Args:
        watch: Object with the methods `layer`, `softmax` and `attention`, which take
            the original function and its arguments and return the result.
    """
    with _WATCHING:
        if not _ORIGINALS:
            for (holder, name), method in _WATCHABLE.items():
                original = getattr(holder, name)
                setattr(holder, name, _through(original, method))
                _ORIGINALS.append((holder, name, original))
            _ORIGINALS.append(0)
        _ORIGINALS[-1] += 1
    token = _WATCH.set(watch)
    try:
        yield watch
    finally:
        _WATCH.reset(token)
        with _WATCHING:
            _ORIGINALS[-1] -= 1
            if not _ORIGINALS[-1]:
                for holder, name, original in _ORIGINALS[:-1]:
                    setattr(holder, name, original)
                _ORIGINALS.clear()


def _through(original, method):
    @functools.wraps(original)
    def call(*args, **kwargs):
        watch = _WATCH.get()
        if watch is None:
            return original(*args, **kwargs)
        if method == "layer":
            return watch.layer(original, *args, **kwargs)
        token = _WATCH.set(None)
        try:
            return getattr(watch, method)(original, *args, **kwargs)
        finally:
            _WATCH.reset(token)

    return call
