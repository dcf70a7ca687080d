"""Convolutional backbones up to their last map, by name."""

import dataclasses
import difflib
import os

import keras

from keras_attn.models.downstream import RESNET50_MEAN, RESNET50_STD
from keras_attn.models.published import (
    penalize_kernels,
    published_network,
    reverse_channels,
)
from keras_attn.models.small_resnet import small_resnet


@dataclasses.dataclass(frozen=True)
class FeatureBackbone:
    """A network without its classifier.

    Args:
        builder: Function of `keras.applications`, or `None` for a network of ours.
        file: Its weights file, as it is published.
        stem: Name of the first convolution, whose published weights take channels in
            BGR order.
        output: Name of the layer that gives the map.
        unstrided: Names of convolutions that lose their stride.
    """

    builder: object = None
    file: str = ""
    stem: str = ""
    output: str = ""
    unstrided: tuple = ()


RESNET50 = FeatureBackbone(
    keras.applications.ResNet50,
    "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "conv1_conv",
    "conv5_block3_out",
)
FEATURE_BACKBONES = {
    "resnet50": RESNET50,
    # With maps twice as large, as iSQRT-COV takes them: 28 x 28 at 448.
    "resnet50_stride16": dataclasses.replace(
        RESNET50, unstrided=("conv5_block1_0_conv", "conv5_block1_1_conv")
    ),
    # The paper's conv5_4 before its pooling: 28 x 28 at 448.
    "vgg19": FeatureBackbone(
        keras.applications.VGG19,
        "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "block1_conv1",
        "block5_conv4",
    ),
    # Ours, to be trained from scratch on a CPU: 12 x 12 at 96.
    "small_resnet": FeatureBackbone(output="final_relu"),
}
SMALL_RESNET = {"base_width": 24, "strides": (1, 2, 1)}


def feature_backbone(
    name,
    inputs,
    weights=None,
    weight_decay=0.0,
    last_convolution=None,
    convolution_options=None,
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
    _check(name, weights)
    backbone = FEATURE_BACKBONES[name]
    shape = tuple(inputs.shape[1:])
    if backbone.builder is None:
        network = small_resnet(shape, num_classes=1, **SMALL_RESNET)
    else:
        network = published_network(
            name, backbone.builder, backbone.file, weights, input_shape=shape
        )
        if weights is not None:
            reverse_channels(network.get_layer(backbone.stem))
    network = keras.Model(network.input, network.get_layer(backbone.output).output)
    replaced = {}
    if last_convolution is not None:
        replaced[_last_spatial_convolution(network).name] = (
            last_convolution,
            convolution_options or {},
        )
    outputs, layers = _rebuilt(network, inputs, backbone.unstrided, replaced)
    penalize_kernels(layers, weight_decay)
    return outputs


def backbone_normalization(name):
    """Mean and std, on the scale 0..1, that the published weights were learned with.

    Returns:
        `{"mean": ..., "std": ...}`, arguments of `ImageSpec`.
    """
    _check(name, None)
    return {"mean": RESNET50_MEAN, "std": RESNET50_STD}


def _check(name, weights):
    if name not in FEATURE_BACKBONES:
        nearest = difflib.get_close_matches(str(name), FEATURE_BACKBONES, 1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(
            f"Expected the backbone to be one of {tuple(FEATURE_BACKBONES)}. "
            f"Received: {name!r}.{hint}"
        )
    if weights is None:
        return
    if FEATURE_BACKBONES[name].builder is None:
        raise ValueError(
            f"Expected no weights of {name!r}, which has no published ones. "
            f"Received: weights={str(weights)!r}"
        )
    if weights != "imagenet" and not os.path.isfile(weights):
        raise FileNotFoundError(
            "Expected `weights` to be None, 'imagenet' or the path of a local file. "
            f"Received: weights={str(weights)!r}, which is not there"
        )


def _last_spatial_convolution(network):
    return next(
        layer
        for layer in reversed(network.layers)
        if isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (3, 3)
    )


def _rebuilt(network, inputs, unstrided, replaced):
    """The network on other inputs, some of its convolutions changed.

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

    keras.models.clone_model(network, inputs, clone_function=clone, call_function=call)
    for layer in layers:
        original = network.get_layer(layer.name)
        if layer.name in replaced:
            layer.kernel.assign(original.kernel)
            if original.use_bias:
                layer.bias.assign(original.bias)
        elif original.weights:
            layer.set_weights(original.get_weights())
    return results[-1], layers
