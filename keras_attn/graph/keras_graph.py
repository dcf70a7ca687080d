"""Adapter for what Keras keeps private: the one file to change when Keras does.

A node is one call of a layer or operation. It has `operation`, `input_tensors`,
`output_tensors` and `arguments`.
"""

import contextlib

import keras
from keras.src.backend.common import global_state


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
