"""Class activation maps of networks that end in pooling and a linear classifier."""

from typing import Literal

import keras
from keras import ops

from keras_attn.explain.gradients import no_gradients
from keras_attn.explain.maps import checked_format, checked_labels, finished, image_size
from keras_attn.explain.split import (
    image_index,
    leave_out_activation,
    output_key,
    producer,
    without_probabilities,
)
from keras_attn.graph.flat import FlatGraph, run
from keras_attn.layers.class_activation_map import ClassActivationMap

# Layers that may stand between pooling and classifier, since they change no number.
BETWEEN = ("Dropout", "SpatialDropout2D", "Identity", "Flatten", "Reshape", "Squeeze")


def class_activation_map(
    model: keras.Model,
    images,
    labels=None,
    raw: bool = False,
    output: str | int | None = None,
    image_input: str | int | None = None,
    data_format: Literal["channels_last", "channels_first"] | None = None,
):
    """The part of a class's logit that every cell adds.

    Zhou et al., "Learning Deep Features for Discriminative Localization". Where a
    network ends in the mean over the cells of its features `A` and one linear layer
    with the weights `w`, the logit of class `c` is but for the bias the mean over the
    cells of

    - `map = sum over k of w_k^c A_k`, eq. (2),

    interpolated bilinearly to the size of the images and scaled so that it goes from 0
    to 1. No gradient is needed. Grad-CAM on the same features is the map's positive
    part divided by the number of cells.

    Args:
        model: Functional or `Sequential` model, also with others inside, that ends
            in `GlobalAveragePooling2D` and one `Dense` or 1x1 convolution, in either
            order, or in `keras_attn.layers.ClassActivationMap`.
        images, labels, raw, output, image_input, data_format: See `grad_cam`. Raw maps
            may be negative.

    Returns:
        float32 tensor, see `grad_cam`.

    Raises:
        ValueError: If the model ends otherwise, or where `grad_cam` raises it.

    Example:

    >>> model = keras.applications.MobileNetV2(
    ...     input_shape=(64, 96, 3), weights=None, classes=10
    ... )
    >>> images = keras.random.uniform((2, 64, 96, 3))
    >>> class_activation_map(model, images).shape
    (2, 64, 96)
    """
    data_format = checked_format(data_format)
    graph = FlatGraph(model)
    score, bare = without_probabilities(graph, output_key(graph, output))
    classifier, layer_input = _linear_end(graph, score, bare)
    if bare:
        leave_out_activation(graph, score)
    values = graph.input_values(images)
    pixels = values[graph.inputs[image_index(graph, image_input)]]
    wanted = [layer_input, score]
    with no_gradients():
        found = run(graph.steps_to(wanted, graph.inputs), values, wanted)
        labels = checked_labels(
            labels, ops.convert_to_numpy(ops.cast(found[score], "float32"))
        )
        features = ops.cast(found[layer_input], "float32")
        if data_format == "channels_first":
            features = ops.moveaxis(features, 1, -1)
        kernel = ops.cast(classifier.kernel, "float32")
        kernel = ops.reshape(kernel, kernel.shape[-2:])
        # Of a thousand classes only the requested ones.
        columns = labels if labels.ndim == 2 else labels[:, None]
        chosen = ops.take(ops.transpose(kernel), columns, axis=0)
        maps = ops.einsum("bijk,bck->bijc", features, chosen)
        maps = finished(maps, image_size(pixels, data_format), raw)
    return maps if labels.ndim == 2 else maps[:, 0]


def _linear_end(graph, score, bare):
    """The layer with the weights, and the key of the map that goes through it.

    A convolution before the mean is as good as one after it, so that both orders give
    the same map.
    """
    classifier, pooled, at = None, False, score
    while classifier is None or not pooled:
        step = producer(graph, at)
        if step is None:
            break
        operation = step.operation
        if operation is None:
            # The way into a model inside the model.
            at = step.sources[step.results.index(at)][1]
            continue
        if isinstance(operation, ClassActivationMap):
            if classifier is None and not pooled:
                return operation.classifier, step.sources[0][1]
            break
        is_last = bare and score in step.results
        if classifier is None and _is_classifier(operation, is_last):
            classifier = operation
        elif isinstance(operation, keras.layers.GlobalAveragePooling2D) and not pooled:
            pooled = True
        elif type(operation).__name__ not in BETWEEN:
            break
        at = step.sources[0][1]
    if classifier is None or not pooled:
        raise ValueError(
            "Expected a model that ends in GlobalAveragePooling2D and one Dense layer "
            f"or 1x1 convolution. Received: {graph.function.name!r}, which has "
            f"{'its input' if step is None else repr(step.path)} there. `grad_cam` "
            "needs no such end."
        )
    return classifier, at


def _is_classifier(operation, is_last):
    activation = getattr(operation, "activation", None)
    if not is_last and getattr(activation, "__name__", None) != "linear":
        return False
    if isinstance(operation, keras.layers.Dense):
        return True
    return (
        isinstance(operation, keras.layers.Conv2D)
        and tuple(operation.kernel_size) == (1, 1)
        and tuple(operation.strides) == (1, 1)
        and operation.groups == 1
    )
