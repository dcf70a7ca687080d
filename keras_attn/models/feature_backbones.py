"""Convolutional backbones up to their last map, by name."""

from pathlib import Path
from typing import Any

import keras

from keras_attn.models.catalogue import NETWORKS, list_models, network, normalization
from keras_attn.models.published import (
    check_weights,
    penalize_kernels,
    published_network,
)

FEATURE_BACKBONES = {name: NETWORKS[name] for name in list_models(role="features")}


def feature_backbone(
    name: str,
    inputs,
    weights: str | Path | None = None,
    weight_decay: float = 0.0,
    last_convolution: type[keras.layers.Layer] | None = None,
    convolution_options: dict[str, Any] | None = None,
):
    """The last feature map of a backbone.

    Args:
        name: One of `FEATURE_BACKBONES`: `"resnet50"` and `"vgg19"` of
            `keras.applications`; `"resnet50_stride16"`, the same ResNet-50 whose last
            stage has stride 1; `"small_resnet"`.
        inputs: Tensor of normalised images `(batch, height, width, 3)` in RGB order.
            Published weights want the normalisation of `backbone_normalization`.
        weights: `None`; `"imagenet"`, which downloads the published weights; or the
            path of a local copy of that file. Not of `"small_resnet"`.
        weight_decay: Coefficient of the L2 penalty on kernels.
        last_convolution: Layer class like `keras.layers.Conv2D` that takes the place
            of the last 3x3 convolution, and its kernel and bias.
        convolution_options: Dict of further arguments of that layer.

    Returns:
        Tensor `(batch, rows, columns, channels)`.

    Raises:
        ValueError: If the name is unknown or the weights do not fit.
        FileNotFoundError: If the weights are not there or the download fails.

    Example:

    >>> images = keras.Input((96, 96, 3))
    >>> feature_backbone("small_resnet", images).shape
    (None, 12, 12, 96)
    """
    entry = network(name, "features")
    check_weights(name, "features", weights)
    shape = tuple(inputs.shape[1:])
    if entry.weights:
        model = published_network(name, "features", weights, input_shape=shape)
    else:
        model = entry.builder(shape, num_classes=1, **entry.options)
    model = keras.Model(model.input, model.get_layer(entry.features).output)
    replaced = {}
    if last_convolution is not None:
        replaced[_last_spatial_convolution(model).name] = (
            last_convolution,
            convolution_options or {},
        )
    outputs, layers = _rebuilt(model, inputs, entry.unstrided, replaced)
    penalize_kernels(layers, weight_decay)
    return outputs


def backbone_normalization(name: str) -> dict[str, tuple[float, ...]]:
    """Mean and std, on the scale 0..1, that `feature_backbone` expects.

    Returns:
        `{"mean": ..., "std": ...}`, arguments of `ImageSpec`: those that the published
        weights were learned with, and the usual ones of ImageNet for networks without.
    """
    return normalization(name, "features")


def _last_spatial_convolution(model):
    return next(
        layer
        for layer in reversed(model.layers)
        if isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (3, 3)
    )


def _rebuilt(model, inputs, unstrided, replaced):
    """The model on other inputs, some of its convolutions changed.

    Returns:
        `(outputs, layers)`.
    """
    layers, results = [], []

    def clone(layer):
        config = layer.get_config()
        if layer.name in unstrided:
            config["strides"] = (1, 1)
        if layer.name not in replaced:
            return type(layer).from_config(config)
        made, options = replaced[layer.name]
        kept = ("name", "filters", "kernel_size", "strides", "padding", "use_bias")
        return made(
            **{key: config[key] for key in kept},
            activation=config["activation"],
            **options,
        )

    def call(layer, *args, **kwargs):
        results.append(layer(*args, **kwargs))
        layers.append(layer)
        return results[-1]

    keras.models.clone_model(model, inputs, clone_function=clone, call_function=call)
    for layer in layers:
        original = model.get_layer(layer.name)
        if layer.name in replaced:
            layer.kernel.assign(original.kernel)
            if original.use_bias:
                layer.bias.assign(original.bias)
        elif original.weights:
            layer.set_weights(original.get_weights())
    return results[-1], layers
