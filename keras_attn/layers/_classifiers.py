"""Helpers shared by layers that hold a classifier."""

from keras import ops

from keras_attn.graph.head import has_labels, head_of_model

SMALLEST_PROBABILITY = 1e-30
# Kind of outputs that are probabilities, of classes or of labels.
PROBABILITIES = "probabilities"
# Kind of logits that have their sigmoids beside them, see `has_labels`.
LABELS = "logits_of_sigmoid"


def build_classifier(classifier, sizes, channels):
    """Builds a classifier that is not built; raises where it refuses a size.

    Returns:
        Whether it was not built before.
    """
    _check_sizes(classifier, sizes, channels)
    is_new = not classifier.built
    if is_new:
        classifier.build((None, *sizes[0], channels))
    return is_new


def _check_sizes(classifier, sizes, channels):
    expected = getattr(classifier, "input_shape", None)
    if not isinstance(expected, tuple) or len(expected) != 4:
        return  # Unknown in subclassed models.
    for size in sizes:
        received = (*size, channels)
        pairs = zip(expected[1:], received, strict=True)
        if any(None not in pair and pair[0] != pair[1] for pair in pairs):
            raise ValueError(
                f"Expected a classifier of patches {received}. Received: "
                f"{classifier.name!r}, which takes {expected[1:]}, for patches of the "
                f"sizes {sizes}. Build it with input_shape="
                f"(None, None, {channels}), or localise with branches of its size only."
            )


def number_of_classes(classifier, shape):
    """Width of the logits or probabilities for images of a shape."""
    shapes = classifier.compute_output_shape((None, *shape))
    shape = shapes.get("logits") if isinstance(shapes, dict) else shapes
    if not isinstance(shape, tuple) or len(shape) != 2:
        raise ValueError(
            "Expected a classifier that returns (batch, classes), or a dict with such "
            f"an entry 'logits'. Received: {classifier.name!r}, which returns {shapes}"
        )
    return shape[-1]


def kind_of(classifier, from_logits):
    """Kind of a classifier's outputs, by its graph or, where unknown, by the caller.

    Args:
        classifier: Keras model.
        from_logits: Whether it returns logits; else probabilities. `None`: by its
            graph, logits if it ends in nothing known.

    Returns:
        A kind of `Head`, `"probabilities"`, or `LABELS`.

    Raises:
        ValueError: If `from_logits` contradicts the graph.
    """
    if has_labels(classifier):
        return LABELS
    head = head_of_model(classifier)
    if head is None or head.kind is None:
        return PROBABILITIES if from_logits is False else "logits"
    if from_logits is head.gives_probabilities:
        raise ValueError(
            f"Expected `from_logits` to be {not from_logits} or None, since "
            f"{classifier.name!r} ends in {_END[head.kind]}. "
            f"Received: from_logits={from_logits}"
        )
    if head.scores == 1 and head.kind.endswith("softmax"):
        raise ValueError(
            "Expected a sigmoid, or no activation, behind a single score: its softmax "
            f"is always 1. Received: {classifier.name!r}"
        )
    return head.kind


_END = {
    "logits": "a layer without activation",
    "softmax": "a softmax",
    "sigmoid": "a sigmoid",
    "log_softmax": "the logarithm of a softmax",
    "log_sigmoid": "the logarithm of a sigmoid",
}


def is_sigmoid(kind, classes):
    """`True` for one score, or for labels that do not exclude each other."""
    return classes == 1 or kind.endswith("sigmoid")


def logits_of(classifier, images, kind):
    """Logits in float32.

    Args:
        classifier: Keras model.
        images: A batch of images.
        kind: See `kind_of`.
    """
    outputs = classifier(images, training=False)
    outputs = outputs["logits"] if isinstance(outputs, dict) else outputs
    outputs = ops.cast(outputs, "float32")
    if kind in ("logits", "log_softmax", LABELS):
        return outputs
    if kind == "log_sigmoid":
        return outputs - _log(-ops.expm1(outputs))
    if kind == "sigmoid" or outputs.shape[-1] == 1:
        return _log(outputs) - _log(1.0 - outputs)
    return _log(outputs)


def probabilities_of(logits, kind):
    """Probabilities of what `logits_of` returns."""
    if is_sigmoid(kind, logits.shape[-1]):
        return ops.sigmoid(logits)
    # Those of an unknown end may be of labels and are not made to add up to one.
    return ops.exp(logits) if kind == PROBABILITIES else ops.softmax(logits, axis=-1)


def logits_of_mean(logits, weights, kind):
    """Logits of the mean probability.

    Args:
        logits: `(batch, slots, classes)`.
        weights: `(batch, slots, 1)`, 0 or 1; without any, all logits are equal.
        kind: See `kind_of`.
    """
    total = ops.sum(probabilities_of(logits, kind) * weights, axis=1)
    count = ops.maximum(ops.sum(weights, axis=1), 1.0)
    if not is_sigmoid(kind, logits.shape[-1]):
        return _log(total / count)
    # Not one minus the probability, which rounds to nothing.
    return _log(total) - _log(ops.sum(ops.sigmoid(-logits) * weights, axis=1))


def two_sided(logits):
    """Logits of at least two classes: a single one is that of class 1, against 0."""
    if logits.shape[-1] > 1:
        return logits
    return ops.concatenate([ops.zeros_like(logits), logits], axis=-1)


def _log(probabilities):
    return ops.log(ops.maximum(probabilities, SMALLEST_PROBABILITY))
