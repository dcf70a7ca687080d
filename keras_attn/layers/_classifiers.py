"""Helpers shared by layers that hold a classifier."""

from keras import ops

SMALLEST_PROBABILITY = 1e-30


def build_classifier(classifier, sizes, channels):
    """Builds a classifier that is not built; raises where it refuses a size."""
    _check_sizes(classifier, sizes, channels)
    if not classifier.built:
        classifier.build((None, *sizes[0], channels))


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


def logits_of(classifier, images, from_logits):
    """Logits in float32, of a classifier that returns logits or probabilities."""
    outputs = classifier(images, training=False)
    outputs = outputs["logits"] if isinstance(outputs, dict) else outputs
    outputs = ops.cast(outputs, "float32")
    if from_logits:
        return outputs
    return ops.log(ops.maximum(outputs, SMALLEST_PROBABILITY))
