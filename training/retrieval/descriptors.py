"""Descriptors of images by a trained model."""

import keras
import numpy as np
from keras import layers

from keras_attn.graph.flat import FlatGraph, run
from keras_attn.graph.head import head_of, output_key, producer, wrapped
from keras_attn.graph.keras_graph import node_of
from keras_attn.layers.branch_decision import BranchDecision
from keras_attn.layers.class_evidence import ClassEvidence
from keras_attn.models.adopted import AsClasses

# Layers that may stand between the last `Dense` layer and `logits`, or before it.
_PASSED = (layers.Identity, layers.Dropout, layers.Activation, layers.Softmax)


def embedder_of(trained):
    """The network that describes an image by a vector, all weights shared.

    The vector is the output `embedding` of a model that has one; otherwise what its
    classifier sees, the input of the last `Dense` layer: the pooled features. Of an
    AnchorNet these are the features of each branch, pooled with its attention and
    scaled to length one.

    Args:
        trained: `Trained`, see `keras_attn.training.trained.load_trained`.

    Returns:
        `keras.Model`: raw pixels of the model's size in; out `(batch, dimension)`,
        float32, of Euclidean length one, so that products are cosine similarities.

    Raises:
        ValueError: If there is no such vector: the model classifies patches or exits
            early, so its logits are no function of one vector per image.
    """
    described = _described(trained.model)
    if described is None:
        raise ValueError(
            "Expected a model with an output named 'embedding', or whose logits are "
            "a Dense layer of pooled features. "
            f"Received: {trained.path} with outputs {', '.join(trained.model.output)}, "
            "which has neither"
        )
    return keras.Model(trained.model.input, _unit(described), name="embedder")


def can_embed(model):
    """Checks that `embedder_of` finds a vector in the model."""
    return _described(model) is not None


def _described(model):
    """The vector that describes an image, or `None`."""
    output = model.output
    if "embedding" in output:
        described = output["embedding"]
    else:
        described = _pooled(output["logits"])
    if described is None:
        described = _pooled_inside(model)
    has_one = described is not None and len(described.shape) == 2
    return described if has_one else None


def _unit(vectors):
    return layers.UnitNormalization(dtype="float32")(vectors)


def _pooled(logits):
    """The vector that logits are computed from, or `None`."""
    while True:
        operation, sources = origin_of(logits)
        if isinstance(operation, layers.GlobalAveragePooling2D):
            return logits
        if isinstance(operation, layers.Dense):
            return sources[0]
        if isinstance(operation, ClassEvidence):
            return _attended(sources)
        if isinstance(operation, BranchDecision):
            branches = [_pooled(source) for source in sources]
            if any(branch is None for branch in branches):
                return None
            return layers.Concatenate()([_unit(branch) for branch in branches])
        if not isinstance(operation, _PASSED):
            return None
        (logits,) = sources


def _pooled_inside(model):
    """`_pooled` where the last `Dense` layer is in a model inside the model."""
    graph = FlatGraph(model)
    key = head_of(graph, output_key(graph, "logits")).key
    step = producer(graph, key)
    if step is not None and isinstance(step.operation, AsClasses):
        key = head_of(graph, step.sources[0][1]).key
        step = producer(graph, key)
    if step is None or not isinstance(wrapped(step.operation), layers.Dense):
        return None
    key = step.sources[0][1]
    given = dict(zip(graph.inputs, model.inputs, strict=True))
    return run(graph.steps_to([key], graph.inputs), given, [key])[key]


def origin_of(tensor):
    """The operation that a tensor comes from, and that operation's inputs."""
    node = node_of(tensor)
    return node.operation, node.input_tensors


def _attended(sources):
    """The features whose linear map are the logits of a `ClassEvidence` layer."""
    if len(sources) == 1:
        return layers.GlobalAveragePooling2D()(sources[0])
    features, attention = (keras.ops.cast(source, "float32") for source in sources)
    return keras.ops.sum(features * attention, axis=(1, 2))


def describe(embedder, images, batch_size=64):
    """Descriptors `(examples, dimension)`, float32, of length one, or zero.

    Images are raw pixels of the model's size, in an array or what is sliced like one;
    `embedder` is that of `embedder_of`.

    Raises:
        ValueError: If a descriptor is not finite.
    """
    parts = [
        np.asarray(
            embedder.predict_on_batch(np.asarray(images[start : start + batch_size]))
        )
        for start in range(0, len(images), batch_size)
    ]
    parts = parts or [np.empty((0, embedder.output.shape[-1]), "float32")]
    return finite(np.concatenate(parts).astype("float32"))


def finite(descriptors):
    """The descriptors, if all of them are finite."""
    if not np.isfinite(descriptors).all():
        raise ValueError(
            "Expected finite descriptors. Received: NaN or infinite ones; the training "
            "of the model diverged."
        )
    return descriptors
