"""Layers and initialisers that the models share."""

import functools
from collections.abc import Callable
from typing import Literal, get_args

import keras
from keras import layers

from keras_attn._checks import one_of
from keras_attn.layers.class_embedding import ClassEmbedding
from keras_attn.layers.patch_logits import PatchLogits

Row = Literal["baseline", "aux", "class_embedding", "class_embedding_concat"]
ROWS = get_args(Row)

# Above this height the paper reduces once more, so that the block sees about as
# many cells of an 84x84 image as of a 32x32 one.
LARGEST_UNREDUCED_SIZE = 48


def l2(decay):
    """L2 penalty on kernels, or `None` without any."""
    return keras.regularizers.L2(decay) if decay else None


def image_input(input_shape, input_tensor):
    """The input tensor: the caller's own, or a new one."""
    if input_tensor is None:
        return keras.Input(input_shape, name="images")
    return input_tensor


def check_images(inputs, smallest, advice=""):
    """Checks the channels of images, and their size as far as it is known."""
    _, height, width, channels = inputs.shape
    if channels != 3:
        raise ValueError(
            "Expected images with 3 channels (convert grey and RGBA images first). "
            f"Received: {channels}"
        )
    if any(size is not None and size < smallest for size in (height, width)):
        raise ValueError(
            f"Expected images of at least {smallest} x {smallest} pixels, the largest "
            f"receptive field. Received: {height} x {width}{advice}"
        )


def unpadded_stem(inputs, filters, activation, decay):
    """3x3 convolution with stride 2 and without padding, as AnchorNets begin."""
    x = layers.Conv2D(
        filters,
        3,
        strides=2,
        use_bias=False,
        kernel_initializer="he_normal",
        kernel_regularizer=l2(decay),
        name="stem",
    )(inputs)
    x = layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, name="stem_normalization"
    )(x)
    return layers.Activation(activation, name="stem_activation")(x)


def needs_extra_reduction(inputs, extra_reduction):
    """The caller's choice, else whether the images are larger than CIFAR's."""
    if extra_reduction is not None:
        return extra_reduction
    height = inputs.shape[1]
    return height is not None and height > LARGEST_UNREDUCED_SIZE


def convolution(inputs, filters, size, name, strides=1, use_bias=False, decay=0.0):
    """ "Same" convolution with He initialisation and an L2 penalty on the kernel."""
    return layers.Conv2D(
        filters,
        size,
        strides=strides,
        padding="same",
        use_bias=use_bias,
        kernel_initializer="he_normal",
        kernel_regularizer=l2(decay),
        name=name,
    )(inputs)


def normalized_relu(inputs, name):
    outputs = layers.BatchNormalization(momentum=0.9, name=f"{name}_normalization")(
        inputs
    )
    return layers.ReLU(name=f"{name}_relu")(outputs)


def preactivated_block(
    inputs,
    width,
    strides,
    name,
    decay,
    convolution=convolution,
    activate=normalized_relu,
):
    """Basic block, BN-ReLU-3x3 twice, with a projection of the activated input.

    Args:
        inputs: Map of the block before.
        width: Channels of the block.
        strides: Stride of its first convolution.
        name: Start of the names of its layers.
        decay: Coefficient of the L2 penalty on kernels.
        convolution, activate: Functions that add the layers, such as those of
            `keras_attn.models.padded`.
    """
    activated = activate(inputs, f"{name}_1")
    x = convolution(activated, width, 3, f"{name}_conv1", strides=strides, decay=decay)
    x = activate(x, f"{name}_2")
    x = convolution(x, width, 3, f"{name}_conv2", decay=decay)
    if strides != 1 or inputs.shape[-1] != width:
        inputs = convolution(
            activated, width, 1, f"{name}_projection", strides=strides, decay=decay
        )
    return layers.Add(name=f"{name}_add")([inputs, x])


def attach_row(inputs, row, num_classes, use_bias=False, concat_filters=192, decay=0.0):
    """Adds what the table's `row` has before the last stage.

    Returns:
        The features for the last stage, and the patch logits (`None` for baseline).
    """
    if row == "baseline":
        return inputs, None
    if row == "aux":
        layer = PatchLogits(
            num_classes, kernel_regularizer=l2(decay), name="patch_classifier"
        )
        return inputs, layer(inputs)
    concatenate = row == "class_embedding_concat"
    outputs = ClassEmbedding(
        num_classes,
        filters=concat_filters if concatenate else None,
        merge="concatenate" if concatenate else "add",
        use_bias=use_bias,
        kernel_regularizer=l2(decay),
        name="class_embedding",
    )(inputs)
    return outputs["features"], outputs["patch_logits"]


def classifier(inputs, features, patch_logits, num_classes, name, decay=0.0):
    """Global average and dense layer; the model with its named outputs."""
    pooled = layers.GlobalAveragePooling2D(name="pool")(features)
    logits = layers.Dense(
        num_classes,
        kernel_regularizer=l2(decay),
        dtype="float32",
        name="logits",
    )(pooled)
    outputs = {"logits": logits}
    if patch_logits is not None:
        outputs["patch_logits"] = layers.Identity(dtype="float32", name="patch_logits")(
            patch_logits
        )
    (source,) = keras.utils.get_source_inputs(inputs)
    return keras.Model(source, outputs, name=name)


def network_with_row(build) -> Callable[..., keras.Model]:
    """The public function of a network whose structure `build` gives.

    `build(inputs, reduce, attach, decay)` takes the images, whether to reduce once
    more, `attach_row` with the caller's row, and the coefficient of the L2 penalty;
    it returns the last map and the patch logits.
    """

    def network(
        input_shape: tuple = (32, 32, 3),
        num_classes: int = 10,
        row: Row = "baseline",
        weight_decay: float = 0.0,
        extra_reduction: bool | None = None,
        input_tensor=None,
        name: str = build.__name__,
    ) -> keras.Model:
        one_of("row", row, ROWS)
        inputs = image_input(input_shape, input_tensor)
        reduce = needs_extra_reduction(inputs, extra_reduction)
        attach = functools.partial(
            attach_row, row=row, num_classes=num_classes, decay=weight_decay
        )
        x, patch_logits = build(inputs, reduce, attach, weight_decay)
        return classifier(inputs, x, patch_logits, num_classes, name, weight_decay)

    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(network, name, getattr(build, name))
    return network


@keras.saving.register_keras_serializable(package="keras_attn")
class ImageSize(keras.layers.Layer):
    """Passes images on, and refuses those of another shape than it was built for.

    A functional model lets some of them through, to fail with less clear errors.
    """

    def build(self, input_shape):
        self.input_spec = keras.layers.InputSpec(shape=(None, *input_shape[1:]))

    def call(self, images):
        return images

    def compute_output_shape(self, input_shape):
        return input_shape
