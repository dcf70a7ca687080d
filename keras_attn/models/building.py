"""Layers and initialisers that the models share."""

import keras
from keras import layers

from keras_attn.layers.class_embedding import ClassEmbedding
from keras_attn.layers.patch_logits import PatchLogits

ROWS = ("baseline", "aux", "class_embedding", "class_embedding_concat")

# Above this height the paper reduces once more, so that the block sees about as
# many cells of an 84x84 image as of a 32x32 one.
LARGEST_UNREDUCED_SIZE = 48


def check_row(row):
    if row not in ROWS:
        raise ValueError(f"Expected `row` to be one of {ROWS}. Received: row={row!r}")


def image_input(input_shape, input_tensor):
    """The input tensor: the caller's own, or a new one."""
    if input_tensor is None:
        return keras.Input(input_shape, name="images")
    return input_tensor


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
        kernel_regularizer=keras.regularizers.L2(decay) if decay else None,
        name=name,
    )(inputs)


def normalized_relu(inputs, name):
    outputs = layers.BatchNormalization(name=f"{name}_normalization")(inputs)
    return layers.ReLU(name=f"{name}_relu")(outputs)


def attach_row(inputs, row, num_classes, use_bias=False, concat_filters=192, decay=0.0):
    """Adds what the table's `row` has before the last stage.

    Returns:
        The features for the last stage, and the patch logits (`None` for baseline).
    """
    regularizer = keras.regularizers.L2(decay) if decay else None
    if row == "baseline":
        return inputs, None
    if row == "aux":
        layer = PatchLogits(
            num_classes, kernel_regularizer=regularizer, name="patch_classifier"
        )
        return inputs, layer(inputs)
    concatenate = row == "class_embedding_concat"
    outputs = ClassEmbedding(
        num_classes,
        filters=concat_filters if concatenate else None,
        merge="concatenate" if concatenate else "add",
        use_bias=use_bias,
        kernel_regularizer=regularizer,
        name="class_embedding",
    )(inputs)
    return outputs["features"], outputs["patch_logits"]


def classifier(inputs, features, patch_logits, num_classes, name, decay=0.0):
    """Global average and dense layer; the model with its named outputs."""
    pooled = layers.GlobalAveragePooling2D(name="pool")(features)
    logits = layers.Dense(
        num_classes,
        kernel_regularizer=keras.regularizers.L2(decay) if decay else None,
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
