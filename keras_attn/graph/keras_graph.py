"""Everything that Keras keeps private and this package needs: one file to mend.

A node is one call of a layer or operation. It has `operation`, `input_tensors`,
`output_tensors` and `arguments`.
"""

import keras


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


def is_of_applications(layer):
    """Whether a layer's class is defined inside `keras.applications`."""
    return type(layer).__module__.startswith("keras.src.applications")
