"""Class activation maps of networks that end in pooling and a linear classifier."""

from typing import Literal

import keras
from keras import ops

from keras_attn.explain.gradients import no_gradients
from keras_attn.explain.maps import (
    checked_format,
    checked_labels,
    finished,
    image_size,
    of_labels,
)
from keras_attn.explain.split import image_index
from keras_attn.graph.flat import FlatGraph, run
from keras_attn.graph.head import (
    behaviour,
    head_of,
    leave_out_activation,
    linear_part,
    output_key,
    producer,
    wrapped,
)
from keras_attn.layers.class_activation_map import ClassActivationMap


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
    head = head_of(graph, output_key(graph, output))
    classifier, layer_input = _linear_end(graph, head)
    if head.bare:
        leave_out_activation(graph, head.key)
    values = graph.input_values(images)
    pixels = values[graph.inputs[image_index(graph, image_input)]]
    wanted = [layer_input, head.key]
    with no_gradients():
        found = run(graph.steps_to(wanted, graph.inputs), values, wanted)
        scores = ops.convert_to_numpy(ops.cast(found[head.key], "float32"))
        labels = checked_labels(labels, scores)
        features, is_first = found[layer_input], data_format == "channels_first"
        is_convolution = isinstance(wrapped(classifier), keras.layers.Conv2D)
        if is_first and not is_convolution:
            features = ops.moveaxis(features, 1, -1)
        maps, _ = linear_part(classifier)(features)
        if is_first and is_convolution:
            maps = ops.moveaxis(maps, 1, -1)
        maps = of_labels(ops.cast(maps, "float32"), labels)
        maps = finished(maps, image_size(pixels, data_format), raw, labels)
    return maps if labels.ndim == 2 else maps[:, 0]


def _linear_end(graph, head):
    """The layer with the weights, and the key of the map that goes through it.

    A convolution before the mean is as good as one after it, so that both orders give
    the same map.
    """
    classifier, pooled, at = None, False, head.key
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
        does, has_weights = behaviour(graph, step)
        is_bare = head.bare and head.key in step.results
        if isinstance(operation, keras.layers.GlobalAveragePooling2D) and not pooled:
            pooled = True
        elif classifier is None and has_weights and _is_linear(operation):
            if does != "identity" and not is_bare:
                break
            classifier = operation
        elif does != "identity" or has_weights:
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


def _is_linear(operation):
    """`True` for a `Dense` layer or a convolution of single cells, also wrapped."""
    layer = wrapped(operation)
    return isinstance(layer, keras.layers.Dense) or (
        isinstance(layer, keras.layers.Conv2D)
        and tuple(layer.kernel_size) == (1, 1)
        and tuple(layer.strides) == (1, 1)
        and layer.groups == 1
    )
