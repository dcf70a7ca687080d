"""Grad-CAM in operations that a graph can hold, for exported models."""

import keras
from keras import ops

from keras_attn.explain.gradients import gradient
from keras_attn.explain.maps import scaled
from keras_attn.explain.split import split, splits_of_branches
from keras_attn.ops.patches import branch_decision


def compiled_grad_cam(model: keras.Model, images, labels) -> dict:
    """The maps of `grad_cam` inside a compiled function, on TensorFlow and JAX.

    Labels are not checked there, constant maps are all zero without a warning.

    Args:
        model: See `grad_cam`; the layer is the one that it takes by default.
        images: `(batch, height, width, channels)`; height and width are known.
        labels: Integers `(batch,)`; -1 for the class with the highest logit.

    Returns:
        Dict of `map` `(batch, height, width)`, float32 in 0..1, `label` `(batch,)`,
        int32, and `score` `(batch,)`, float32, the class's logit.

    Raises:
        ValueError: If the model has no such graph, or its gradients are not exact.
    """
    where = None, None, "channels_last"
    branches = splits_of_branches(model, images, *where)
    parts = branches or [split(model, images, None, *where)]
    if any(part.is_half or part.float8 for part in parts):
        raise ValueError("Expected a model with gradients in float32")
    logits = ops.stack([ops.cast(part.logits, "float32") for part in parts], axis=1)
    best, branch = branch_decision(logits)
    if logits.shape[-1] == 1:
        best = ops.cast(logits[:, 0, 0] > 0, "int32")
    labels = ops.where(labels < 0, best, ops.cast(labels, "int32"))
    maps, scores = 0.0, 0.0
    for index, part in enumerate(parts):
        mine = ops.cast(branch == index, "float32")
        found = ops.relu(_weighted(part, labels))[..., None]
        size = tuple(images.shape[1:3])
        found = ops.image.resize(found, size, "bilinear", data_format="channels_last")
        maps += mine[:, None, None] * scaled(found)[..., 0]
        scores += mine * _score(part.logits, labels)
    return {"map": maps, "label": labels, "score": scores}


def _weighted(part, labels):
    """`sum over k of w_k A_k`, equation (2), before ReLU."""
    slope = gradient(
        lambda features: ops.sum(_score(part.logits_of(features), labels)),
        part.features,
    )
    slope = part.to_map(ops.cast(slope, "float32"))
    features = part.to_map(ops.stop_gradient(ops.cast(part.features, "float32")))
    weights = ops.mean(slope, axis=(1, 2), keepdims=True)
    return ops.sum(weights * features, axis=-1)


def _score(logits, labels):
    """The logit of each image's class; of one logit, its negative for class 0."""
    logits = ops.cast(logits, "float32")
    if logits.shape[-1] == 1:
        return ops.where(labels > 0, logits[:, 0], -logits[:, 0])
    return ops.sum(logits * ops.one_hot(labels, logits.shape[-1]), axis=-1)
