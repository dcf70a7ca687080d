"""Any functional model as one flat list of calls, models inside it included.

Keras cannot build a model from an inner layer of a model that another one uses as a
layer: the inner tensors belong to a graph of their own. Here the calls of all graphs
stand in one list, in the order in which they run, and any tensor among them can be
asked for or put in. The layers are the model's own; nothing is copied or changed.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import keras

from keras_attn.graph.keras_graph import (
    call_index,
    graph_of,
    nodes_of,
    standardized,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """One call of a layer or operation.

    Args:
        path: Names of the models around it, from outside, and its own, with `/`.
        operation: The layer or operation itself.
        function: What is called.
        arguments: Its symbolic arguments, as Keras keeps them.
        sources: Pairs of a symbolic tensor's `id` and the key of its value.
        results: Keys of what it returns, flat.
    """

    path: str
    operation: Any
    function: Callable
    arguments: Any
    sources: tuple
    results: tuple

    def __call__(self, values):
        known = {tensor: values[key] for tensor, key in self.sources}
        args, kwargs = self.arguments.fill_in(known)
        if isinstance(self.operation, keras.Layer):
            kwargs = {**kwargs, "training": False}
        return keras.tree.flatten(self.function(*args, **kwargs))


@dataclasses.dataclass(frozen=True, eq=False)
class _Rest(Step):
    """A call whose last source is a tensor from inside, which its function takes first.

    See `FlatGraph.divide`.
    """

    def __call__(self, values):
        known = {tensor: values[key] for tensor, key in self.sources}
        args, kwargs = self.arguments.fill_in(known)
        return keras.tree.flatten(self.function(known[None], *args, **kwargs))


class FlatGraph:
    """The calls of a functional or `Sequential` model, those inside it included.

    A key stands for one tensor of one call, so that a model that is used twice has
    two keys for each of its tensors.

    Attributes:
        steps: List of `Step`, in an order in which they can run.
        tensors: Dict from key to symbolic tensor, of which shape and dtype count.
        inputs: Keys of the model's inputs, flat.
        outputs: Keys of the model's outputs, flat.
        named: Dict from a path, such as `"backbone/conv5_block3_out"`, to the keys of
            what that layer returns. Of a layer that is called several times there is
            one for each call, such as `"conv/0"`, and the path itself means the last.
        calls: Dict from such a path to those of its calls, one or more.
        returned: Dict from the name of an output, of the model or of one inside, to
            the keys of its tensors.

    Raises:
        ValueError: If the model has no graph.
    """

    def __init__(self, model):
        self.function = graph_of(model)
        if self.function is None:
            raise ValueError(
                "Expected a functional or built Sequential model, or one made of such. "
                f"Received: {_described(model)}, whose call cannot be taken apart. "
                "`occlusion` works on any model, `attention_maps` and "
                "`attention_rollout` on any with attention layers."
            )
        self.steps, self.tensors, self.named, self.returned = [], {}, {}, {}
        self._count = itertools.count()
        self.inputs = self._keys(self.function.inputs)
        self.calls = {}
        self.outputs = self._inline(self.function, self.inputs, "")
        self._number_calls()

    def _keys(self, tensors):
        keys = tuple(next(self._count) for _ in tensors)
        self.tensors.update(zip(keys, tensors, strict=True))
        return keys

    def _inline(self, function, keys, prefix, place=()):
        """Adds the calls of a graph whose inputs have these keys; its outputs' keys."""
        known = dict(zip(map(id, function.inputs), keys, strict=True))
        for node in nodes_of(function):
            if any(id(each) not in known for each in node.arguments.keras_tensors):
                continue
            operation = node.operation
            path = prefix + operation.name
            at = (*place, call_index(node))
            inner = graph_of(operation)
            if inner is None or not _is_plain(node):
                results = self._call(path, node, operation, node.outputs, known)
            else:
                # As the inner model does with what it is given.
                entry = _entry(inner)
                entered = self._call(path, node, entry, inner.inputs, known)
                results = self._inline(inner, entered, f"{path}/", at)
            self.calls.setdefault(path, []).append((at, results))
            known.update(zip(map(id, node.outputs), results, strict=True))
        outputs = tuple(known[id(tensor)] for tensor in function.outputs)
        if isinstance(function.output, dict):
            for name, key in zip(sorted(function.output), outputs, strict=True):
                self.returned.setdefault(name, []).append(key)
        return outputs

    def _number_calls(self):
        """Names every layer, and every call of one that is called several times."""
        for path, calls in list(self.calls.items()):
            results = [each for _, each in sorted(calls)]
            several = len(results) > 1
            names = [f"{path}/{i}" if several else path for i in range(len(results))]
            self.named.update(zip(names, results, strict=True))
            self.named[path] = results[-1]
            self.calls[path] = names

    def _call(self, path, node, function, outputs, known):
        results = self._keys(outputs)
        tensors = node.arguments.keras_tensors
        sources = tuple((id(tensor), known[id(tensor)]) for tensor in tensors)
        operation, arguments = node.operation, node.arguments
        if function is not operation:
            operation = None
        self.steps.append(Step(path, operation, function, arguments, sources, results))
        return results

    def divide(self, step, path, shape, find, put):
        """Replaces a step by two: one gives a tensor inside it, the other takes it.

        Args:
            step: `Step`.
            path: Path of the tensor, for `named`.
            shape: Shape of the tensor.
            find: Function from the step's arguments to the tensor.
            put: Function from the tensor and these arguments to the step's results.

        Returns:
            The key of the tensor.
        """
        (key,) = self._keys([keras.KerasTensor(shape)])
        inside = dataclasses.replace(step, function=find, results=(key,))
        fields = dict(vars(step), function=put, sources=(*step.sources, (None, key)))
        at = self.steps.index(step)
        self.steps[at : at + 1] = [inside, _Rest(**fields)]
        self.named[path], self.calls[path] = (key,), [path]
        return key

    def input_values(self, inputs):
        """Dict from the keys of the inputs to tensors.

        Args:
            inputs: What the model takes: a tensor, or a list or dict of tensors.
        """
        inputs = keras.tree.map_structure(keras.ops.convert_to_tensor, inputs)
        inputs = standardized(self.function, inputs)
        return dict(zip(self.inputs, inputs, strict=True))

    def steps_to(self, wanted, given):
        """The steps that compute some keys from given ones, and nothing else."""
        missing, chosen = set(wanted) - set(given), []
        for step in reversed(self.steps):
            if missing.intersection(step.results):
                chosen.append(step)
                missing.difference_update(step.results)
                missing.update(key for _, key in step.sources if key not in given)
        return chosen[::-1]


def run(steps, values, wanted):
    """Runs steps in their order.

    Args:
        steps: List of `Step`.
        values: Dict from key to tensor, of all that the steps do not compute.
        wanted: Keys.

    Returns:
        Dict from the wanted keys to their tensors. What no later step needs is let go.
    """
    last = {key: step for step in steps for _, key in step.sources}
    values, kept = dict(values), set(wanted)
    for step in steps:
        values.update(zip(step.results, step(values), strict=True))
        for key in {key for _, key in step.sources} - kept:
            if last[key] is step:
                del values[key]
    return {key: values[key] for key in wanted}


def _is_plain(node):
    """`True` for a call of a model on its inputs alone, with no mask beside them."""
    inside = keras.tree.flatten(node.arguments.args[:1])
    return len(node.arguments.args) == 1 and len(inside) == len(
        node.arguments.keras_tensors
    )


def _entry(function):
    def enter(inputs, **_):
        return standardized(function, inputs)

    return enter


def _described(model):
    if isinstance(model, keras.Sequential):
        return f"the Sequential model {model.name!r}, which is not built"
    if isinstance(model, keras.Layer):
        return f"{model.name!r}, a {type(model).__name__}"
    return repr(model)
