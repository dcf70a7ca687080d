"""A trained classifier for other classes: its layers, and a new head."""

import dataclasses
from collections.abc import Sequence

import keras
from keras import layers

from keras_attn._checks import one_of
from keras_attn.graph.flat import FlatGraph, run
from keras_attn.graph.head import output_key, producer
from keras_attn.models.descriptors import POOLINGS, pool
from keras_attn.preprocessing import ImagePreprocessing, ImageSpec

# Further names of poolings.
ALIASES = {"gem": "generalized_mean", "gap": "average"}


@dataclasses.dataclass(frozen=True)
class NewHead:
    """A classifier with a new head.

    Args:
        model: From raw images to `logits`. All models inside it are taken apart into
            their layers, which it shares with the old one.
        layers: Names of its new layers.
        last_map: Name of the layer whose map is pooled; `None` for a network without.
    """

    model: keras.Model
    layers: tuple[str, ...]
    last_map: str | None


def with_new_head(
    model: keras.Model, spec: ImageSpec, pooling: str = "", dropout: float = 0.0
) -> NewHead:
    """A trained classifier with a new last layer.

    Args:
        model: Classifier that carries its `ImageSpec`, see `keras_attn.adopt`.
        spec: `ImageSpec` of the new model; its class names are those of the new head.
        pooling: Name in `keras_attn.models.descriptors.POOLINGS` of what replaces all
            that is behind the last map; empty: what stands there stays.
        dropout: Rate of the dropout in front of the last layer.

    Raises:
        ValueError: If there is no such pooling; if the model does not end in a layer
            with weights, or has no map to pool.
    """
    pooling = known_pooling(pooling)
    graph = FlatGraph(model)
    fitting = _preprocessing(graph)
    features, last_map = _features(graph, model)
    if pooling and last_map is None:
        raise ValueError(
            "Expected a network with a map (height, width, channels) in front of its "
            f"head to pool. Received: pooling={pooling!r} for {model.name!r}"
        )
    start, end = fitting.results[0], last_map if pooling else features
    steps = graph.steps_to([end], [start])
    _rename(steps)
    config = {**fitting.operation.get_config(), "name": "preprocessing"}
    images = keras.Input((spec.height, spec.width, 3), name="images")
    layer = type(fitting.operation).from_config({**config, "spec": spec.to_dict()})
    x = run(steps, {start: layer(images)}, [end])[end]
    old = {step.operation.name for step in steps if step.operation is not None}
    if pooling:
        x = pool(x, pooling)
    elif len(x.shape) > 2:
        x = layers.Flatten(name="head_flatten")(x)
    if dropout:
        x = layers.Dropout(dropout, name="head_dropout")(x)
    logits = layers.Dense(len(spec.class_names), name="logits", dtype="float32")(x)
    found = keras.Model(images, {"logits": logits}, name=model.name)
    known = {*old, images.name, layer.name}
    new = [each.name for each in found.layers if each.name not in known]
    at = None if last_map is None else producer(graph, last_map)
    return NewHead(found, tuple(new), at and at.operation.name)


def known_pooling(name: str) -> str:
    """The name in `POOLINGS` of a pooling, or of none.

    Raises:
        ValueError: If there is no such pooling.
    """
    if name:
        one_of("pooling", name, sorted({*POOLINGS, *ALIASES}))
    return ALIASES.get(name, name)


def freeze_statistics(model: keras.Model, but: Sequence[str] = ()) -> None:
    """Lets batch normalisation use the statistics it has, also in training.

    Args:
        model: Model with a flat graph.
        but: Names of layers that are left as they are.
    """
    for layer in model.layers:
        if layer.name not in but and isinstance(layer, layers.BatchNormalization):
            layer.trainable = False


def _preprocessing(graph):
    for step in graph.steps:
        if isinstance(step.operation, ImagePreprocessing):
            return step
    raise ValueError(
        "Expected a model that carries its image spec, see `keras_attn.adopt`. "
        f"Received: {graph.function.name!r}"
    )


def _features(graph, model):
    """Keys of what the last layer with weights takes, and of the last map."""
    step = producer(graph, output_key(graph, None))
    while step is not None and not getattr(step.operation, "weights", ()):
        step = producer(graph, step.sources[0][1]) if step.sources else None
    if step is None or not step.sources:
        raise ValueError(
            "Expected a classifier whose scores come from a layer with weights. "
            f"Received: {model.name!r}"
        )
    features = at = step.sources[0][1]
    while not _is_map(graph.tensors[at].shape):
        step = producer(graph, at)
        if step is None or len(step.sources) != 1:
            return features, None
        at = step.sources[0][1]
    return features, at


def _is_map(shape):
    return len(shape) == 4 and all(side is None or side > 1 for side in shape[1:3])


def _rename(steps):
    """Gives layers of several models, which one graph may not repeat, own names."""
    taken = {"images", "preprocessing", "logits", "pool", "head_dropout"}
    taken |= {"head_flatten", "reduction", "reduction_normalization", "reduction_relu"}
    seen = set()
    for step in steps:
        operation = step.operation
        if operation is None or id(operation) in seen:
            continue
        seen.add(id(operation))
        name, count = operation.name, 1
        while operation.name in taken:
            count += 1
            operation.name = f"{name}_{count}"
        taken.add(operation.name)
