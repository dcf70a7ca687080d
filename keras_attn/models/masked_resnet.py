"""Residual networks whose shortcuts are masked with an attention map."""

from typing import Literal

import keras
from keras import layers, ops

from keras_attn._checks import one_of
from keras_attn.layers.attention_masked_residual import AttentionMaskedResidual
from keras_attn.models import building, padded
from keras_attn.ops.resize import INTERPOLATIONS

STEMS = ("patch", "native")
BLOCKS = ("basic", "bottleneck")
CONTROLS = ("none", "constant", "shuffled")
# Blocks in the four stages of the published networks of bottleneck blocks.
BOTTLENECK_DEPTHS = {
    14: (1, 1, 1, 1),
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
# Output channels of a bottleneck block over those of its 3x3 convolution.
EXPANSION = 4


def masked_resnet(
    depth: int = 8,
    num_classes: int = 10,
    stem: Literal["patch", "native"] = "patch",
    block: Literal["basic", "bottleneck"] = "basic",
    strength: float | None = 1.0,
    target: str = "shortcut",
    control: Literal["none", "constant", "shuffled"] = "none",
    input_shape: tuple = (224, 224, 3),
    map_shape: tuple | None = None,
    interpolation: Literal["nearest", "bilinear"] = "nearest",
    weight_decay: float = 0.0,
    input_tensor=None,
    map_tensor=None,
    name: str = "masked_resnet",
) -> keras.Model:
    """Two-branch ResNet: attention blocks mask the shortcuts of residual blocks.

    Wang, "Refining Residual Mappings Using Regions of High Attention", sections 3.3 to
    3.5. A stem and `n` blocks on each of two branches. Classification block `i` is
    the residual block of He et al.: `f_i` is 3x3-BN-ReLU-3x3-BN (1x1-BN-ReLU-
    3x3-BN-ReLU-1x1-BN as bottleneck), `P_i` the identity, or 1x1-BN where the shape
    changes. Attention block `i` has the layers of `f_i` and a sigmoid; its output is
    the mask `m_i`, of the same shape as the features of classification block `i`, and
    the input of the next attention block. The two are joined by
    `AttentionMaskedResidual`. Then global average and dense layer.

    ResNet8 has 78,378 parameters (10 classes) in its classification branch and 74,464
    in its attention branch.

    Args:
        depth: Layers with weights on the classification branch: `6 n + 2` for basic
            blocks, in three stages of 16, 32 and 64 channels; 14, 26, 50, 101 or 152
            for bottleneck blocks, in four stages of 256 to 2048 channels.
        num_classes: Number of classes.
        stem: `"patch"`: a 4x4 convolution with stride 4; `"native"`: 3x3 with stride
            1, for images of about 32 pixels. Each with BN and ReLU.
        block: `"basic"` or `"bottleneck"`.
        strength, target: See `AttentionMaskedResidual`. At strength 0 the logits are
            bitwise those of the plain network and the attention branch learns nothing.
            Strength `None`: the plain network, without attention branch.
        control: Replacement of the map in the attention branch, which separates the
            effect of the map from that of more parameters: `"constant"`: ones;
            `"shuffled"`: the map of the image before it in the batch. In a batch of
            one, that is the image's own.
        input_shape: `(height, width, channels)` of the images; height and width may be
            `None`.
        map_shape: `(rows, columns, 1)` of the map; by default it has the images' size.
            A smaller map is enlarged by whole factors.
        interpolation: Interpolation of that, `"nearest"` or `"bilinear"`.
        weight_decay: Coefficient of the L2 penalty on kernels.
        input_tensor, map_tensor: Tensors of normalised images, and of maps, to build
            on instead of new inputs.
        name: Name of the model.

    Returns:
        Functional model. Inputs: dict of `images` and `attention_map`, the latter
        `(batch, rows, columns, 1)` with values in [0, 1]. Outputs: dict of `logits`,
        float32, and the masks `mask_1`, `mask_2`, ... in the compute dtype. The plain
        network takes the images and gives logits alone, and so does a network whose
        `map_tensor` is computed from the images take these alone. Layers named
        `stage1`, `stage2`, ... give the features after each stage.

    Raises:
        ValueError: For a depth that does not exist, an unknown name, a strength outside
            [0, 1], or sizes that do not fit.

    Example:

    >>> model = masked_resnet(input_shape=(64, 32, 3), map_shape=(8, 4, 1))
    >>> model.output["mask_3"].shape
    (None, 4, 2, 64)
    """
    one_of("stem", stem, STEMS)
    one_of("block", block, BLOCKS)
    one_of("control", control, CONTROLS)
    stages = _stages(depth, block)
    images = building.image_input(input_shape, input_tensor)
    _check_size(images, stem)
    first_width = stages[0][1]
    x = _stem(images, stem, first_width, "stem", weight_decay)
    sources, outputs, mask = [images], {}, None
    if strength is not None:
        if map_tensor is None:
            map_shape = map_shape or (*images.shape[1:3], 1)
            map_tensor = keras.Input(map_shape, name="attention_map")
        sources.append(map_tensor)
        mask = _fit_map(map_tensor, images.shape[1:3], interpolation)
        mask = _controlled(mask, control)
        mask = _stem(mask, stem, first_width, "attention_stem", weight_decay)
    for stage, (count, width, stride) in enumerate(stages, 1):
        for number in range(1, count + 1):
            block_name = f"stage{stage}_block{number}"
            strides = stride if number == 1 else 1
            here = (width, block, strides, weight_decay)
            branch = _branch(x, block_name, *here)
            shortcut = _shortcut(x, branch, block_name, strides, weight_decay)
            if mask is None:
                x = layers.Add(name=f"{block_name}_add")([branch, shortcut])
                x = layers.ReLU(name=f"{block_name}_out")(x)
                continue
            mask_name = f"mask_{len(outputs) + 1}"
            mask = _branch(mask, f"{block_name}_attention", *here)
            mask = layers.Activation("sigmoid", name=mask_name)(mask)
            outputs[mask_name] = mask
            masked = AttentionMaskedResidual(strength, target, name=f"{block_name}_out")
            x = masked([branch, shortcut, mask])
        x = layers.Identity(name=f"stage{stage}")(x)
    logits = _classify(x, num_classes, weight_decay)
    return keras.Model(_inputs(*sources), {"logits": logits, **outputs}, name=name)


def end_to_end(
    map_model: keras.Model,
    network: keras.Model,
    interpolation: Literal["nearest", "bilinear"] = "nearest",
    name: str | None = None,
) -> keras.Model:
    """From images to logits, with the attention map computed inside.

    Proposed as future work in section 6 of the paper: a map generator that is trained
    together with the network, through the masks. Weights are shared with both models,
    so either can be used by itself afterwards. For a fixed generator set
    `map_model.trainable` to `False` before.

    Args:
        map_model: Model from images to a map `(batch, rows, columns, 1)` in [0, 1].
        network: A `masked_resnet` with the inputs `images` and `attention_map`, which
            gets the same images.
        interpolation: Interpolation of a map that is enlarged by a whole factor to the
            size that the network takes, `"nearest"` or `"bilinear"`.
        name: Name of the model; by default the network's with `_end_to_end`.

    Returns:
        Functional model with the input `images`, the network's outputs, and
        `attention_map`, the generator's.

    Raises:
        ValueError: If the network takes no map, or sizes do not fit.

    Example:

    >>> network = masked_resnet(input_shape=(32, 32, 3), stem="native")
    >>> images = keras.Input((32, 32, 3))
    >>> maps = keras.layers.Conv2D(1, 4, 4, activation="sigmoid")(images)
    >>> model = end_to_end(keras.Model(images, maps), network)
    >>> model.output["attention_map"].shape
    (None, 8, 8, 1)
    """
    inputs = network.input
    names = sorted(inputs) if isinstance(inputs, dict) else "without names"
    if names != ["attention_map", "images"]:
        raise ValueError(
            "Expected `network` with the inputs 'images' and 'attention_map'. "
            f"Received: {network.name!r} with inputs {names}"
        )
    images = keras.Input(inputs["images"].shape[1:], name="images")
    found = map_model(images)
    if keras.tree.is_nested(found) or len(found.shape) != 4 or found.shape[-1] != 1:
        shapes = keras.tree.map_structure(lambda tensor: tensor.shape, found)
        raise ValueError(
            "Expected `map_model` to give maps of shape (batch, rows, columns, 1). "
            f"Received: {map_model.name!r}, which gives {shapes}"
        )
    fitted = _fit_map(found, inputs["attention_map"].shape[1:3], interpolation)
    outputs = dict(network({"images": images, "attention_map": fitted}))
    outputs["attention_map"] = found
    name = name or f"{network.name}_end_to_end"
    return keras.Model(images, outputs, name=name)


def _stages(depth, block):
    """`(blocks, width, stride)` of every stage."""
    if block == "bottleneck" and depth in BOTTLENECK_DEPTHS:
        counts = BOTTLENECK_DEPTHS[depth]
        return list(zip(counts, (64, 128, 256, 512), (1, 2, 2, 2), strict=True))
    if block == "basic" and isinstance(depth, int) and depth > 2 and depth % 6 == 2:
        return [(depth // 6, 16, 1), (depth // 6, 32, 2), (depth // 6, 64, 2)]
    depths = {
        "basic": "6 n + 2, such as 8, 14, 20",
        "bottleneck": f"one of {tuple(BOTTLENECK_DEPTHS)}",
    }
    raise ValueError(
        f"Expected `depth` to be {depths[block]}, with {block} blocks. "
        f"Received: depth={depth!r}"
    )


def _stem(inputs, stem, width, name, decay):
    if stem == "native":
        x = padded.convolution(inputs, width, 3, name, decay=decay)
    else:
        x = layers.Conv2D(
            width,
            4,
            strides=4,
            use_bias=False,
            kernel_initializer="he_normal",
            kernel_regularizer=building.l2(decay),
            name=name,
        )(inputs)
    return padded.normalized_relu(x, name)


def _branch(inputs, name, width, block, strides, decay):
    """The layers of `f_i`, and of an attention block before its sigmoid."""
    # Window, channels and stride of every convolution.
    convolutions = [(3, width, strides), (3, width, 1)]
    if block == "bottleneck":
        convolutions = [(1, width, 1), (3, width, strides), (1, EXPANSION * width, 1)]
    x = inputs
    for number, (size, filters, stride) in enumerate(convolutions, 1):
        layer = f"{name}_conv{number}"
        x = padded.convolution(x, filters, size, layer, stride, decay=decay)
        x = padded.normalize(x, layer)
        if number < len(convolutions):
            x = layers.ReLU(name=f"{layer}_relu")(x)
    return x


def _shortcut(inputs, branch, name, strides, decay):
    """`P_i`: the identity, or a projection where the shape changes."""
    width = branch.shape[-1]
    if strides == 1 and inputs.shape[-1] == width:
        return inputs
    name = f"{name}_projection"
    x = padded.convolution(inputs, width, 1, name, strides, decay=decay)
    return padded.normalize(x, name)


def _classify(features, num_classes, decay):
    pooled = layers.GlobalAveragePooling2D(name="pool")(features)
    return layers.Dense(
        num_classes,
        kernel_regularizer=building.l2(decay),
        dtype="float32",
        name="logits",
    )(pooled)


def _fit_map(attention_map, size, interpolation):
    """The map enlarged to `size`, `(height, width)`, by whole factors."""
    one_of("interpolation", interpolation, INTERPOLATIONS)
    found = tuple(attention_map.shape[1:3])
    size = tuple(size)
    if found == size:
        return attention_map
    if None in (*found, *size) or any(
        large % small for large, small in zip(size, found, strict=True)
    ):
        raise ValueError(
            f"Expected an attention map whose size divides {size}. "
            f"Received: a map of size {found}"
        )
    factors = tuple(large // small for large, small in zip(size, found, strict=True))
    return layers.UpSampling2D(
        factors, interpolation=interpolation, name="attention_map_upsampling"
    )(attention_map)


def _controlled(attention_map, control):
    if control == "constant":
        return ops.ones_like(attention_map)
    if control == "shuffled":
        return ops.roll(attention_map, 1, axis=0)
    return attention_map


def _inputs(images, attention_map=None):
    """The inputs by name; the images alone where there is nothing else."""
    (image_source,) = keras.utils.get_source_inputs(images)
    if attention_map is None:
        return image_source
    (map_source,) = keras.utils.get_source_inputs(attention_map)
    if map_source is image_source:
        return image_source
    return {"images": image_source, "attention_map": map_source}


def _check_size(images, stem):
    sizes = images.shape[1:3]
    if stem == "patch" and any(size is not None and size % 4 for size in sizes):
        raise ValueError(
            "Expected a height and width divisible by 4, the stem's stride. "
            f"Received: images of size {tuple(sizes)}"
        )
