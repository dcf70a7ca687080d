"""Constants of a soft maximiser from a network trained with BatchNormalization."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_attn.graph.keras_graph import private_name

# A channel whose gamma is smaller is switched off; its margin would be arbitrary.
SMALLEST_GAMMA = 1e-3


def estimate_margin_and_scale(
    model: keras.Model,
    images,
    normalizations: Sequence[str] | None = None,
    batch_size: int = 32,
) -> tuple[float, float]:
    """Estimate the margin and the scale that stand in for BatchNormalization-ReLU.

    Class embedding paper, sections 3.2 and 4.1. BatchNormalization followed by ReLU
    passes an activation `a_k` exactly when it exceeds
    `mu_k = E[a_k] - beta_k sqrt(Var[a_k] + eps) / gamma_k`. The margin `mu` is the
    mean of all `mu_k` that are not zero, with the moving statistics as `E` and
    `Var`; channels with `gamma_k` near zero are left out. The scale `kappa` is the
    channel sum after BatchNormalization-ReLU, averaged over pixels, images and
    layers.

    Args:
        model: A trained functional Keras model.
        images: Array of inputs to the model; a few hundred are enough.
        normalizations: Names of the BatchNormalization layers to use, each taken to
            be followed by ReLU. `None` for those between a convolution with a window
            larger than 1x1 and a ReLU, the paper's place for a soft maximiser.
        batch_size: Number of images per step of prediction.

    Returns:
        `(margin, scale)`, two floats, for `keras_attn.layers.MarginSoftmax` or
        `keras_attn.layers.PerturbedArgmax`.

    Raises:
        ValueError: If the model is not functional, has no such layer, lacks one of
            the names, or has no channel to estimate from.

    Example:

    >>> margin, scale = estimate_margin_and_scale(trained_model, images[:256])
    >>> activation = keras_attn.layers.MarginSoftmax(margin, scale=scale)
    """
    if not isinstance(model, keras.Model) or not hasattr(model, "operations"):
        raise ValueError(f"Expected a functional Keras model. Received: model={model}")
    if normalizations is None:
        layers = _normalizations_between_convolution_and_relu(model)
    else:
        layers = [_normalization(model, name) for name in normalizations]
    if not layers:
        raise ValueError(
            "Expected a model with BatchNormalization between a convolution larger "
            "than 1x1 and a ReLU; name the layers in `normalizations` if they stand "
            f"elsewhere. Received: model={model.name}, "
            f"normalizations={normalizations}"
        )
    margins = np.concatenate([_channel_margins(layer) for layer in layers])
    if not margins.size:
        raise ValueError(
            "Expected trained BatchNormalization layers, but every channel has a "
            "gamma near zero or a margin of zero. "
            f"Received: {[layer.name for layer in layers]}"
        )
    totals = [
        _mean_channel_total(ops.relu(layer.output), layer.axis) for layer in layers
    ]
    measured = keras.Model(model.input, ops.stack(totals, axis=-1))
    scales = measured.predict(images, batch_size=batch_size, verbose=0)
    return float(margins.mean()), float(np.mean(scales, dtype="float64"))


def _channel_margins(layer):
    mean, variance = (
        ops.convert_to_numpy(moving).astype("float64")
        for moving in (layer.moving_mean, layer.moving_variance)
    )
    beta = ops.convert_to_numpy(layer.beta) if layer.center else np.zeros_like(mean)
    gamma = ops.convert_to_numpy(layer.gamma) if layer.scale else np.ones_like(mean)
    alive = np.abs(gamma) > SMALLEST_GAMMA
    deviation = np.sqrt(variance[alive] + layer.epsilon)
    margins = mean[alive] - beta[alive] * deviation / gamma[alive]
    return margins[margins != 0]


def _mean_channel_total(activations, axis):
    """Channel sum, averaged over the pixels of each image: (batch,)."""
    totals = ops.sum(ops.cast(activations, "float32"), axis=axis)
    return ops.mean(totals, axis=tuple(range(1, len(totals.shape))))


def _normalizations_between_convolution_and_relu(model):
    """BatchNormalization layers in the paper's place, in the model's order."""
    producers, consumers = {}, {}
    for operation in model.operations:
        if isinstance(operation, keras.layers.InputLayer):
            continue
        for tensor in keras.tree.flatten(operation.output):
            producers[id(tensor)] = operation
        for tensor in keras.tree.flatten(operation.input):
            consumers.setdefault(id(tensor), []).append(operation)
    return [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
        and _is_wide_convolution(producers.get(id(layer.input)))
        and any(map(_is_relu, consumers.get(id(layer.output), ())))
    ]


def _is_wide_convolution(operation):
    kinds = (
        keras.layers.Conv2D,
        keras.layers.DepthwiseConv2D,
        keras.layers.SeparableConv2D,
    )
    return isinstance(operation, kinds) and max(operation.kernel_size) > 1


def _is_relu(operation):
    if isinstance(operation, keras.layers.Activation):
        return operation.activation is keras.activations.relu
    is_layer = isinstance(operation, keras.layers.ReLU)
    return is_layer or private_name(operation) == "ops.Relu"


def _normalization(model, name):
    layer = next((layer for layer in model.layers if layer.name == name), None)
    if not isinstance(layer, keras.layers.BatchNormalization):
        raise ValueError(
            "Expected `normalizations` to name BatchNormalization layers of the "
            f"model {model.name}. Received: {name!r}, which is {layer}"
        )
    return layer
