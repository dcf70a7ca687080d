import keras
from keras import ops

from keras_attn._checks import positive_integer


@keras.saving.register_keras_serializable(package="keras_attn")
class ClassPrompts(keras.layers.Layer):
    """A learned token for each class in front of an image's tokens.

    Chowdhury et al., "Prompt-CAM", section 2.2: inside a transformer that learns no
    more, these tokens look for what is typical of their classes.

    Args:
        num_classes: Number of classes.

    Call arguments:
        inputs: Tokens.

    Input shape: `(batch, tokens, width)`.

    Output shape: `(batch, num_classes + tokens, width)`, in the layer's compute dtype;
        the prompts come first.

    Raises:
        ValueError: If `num_classes` is not a positive integer.

    Example:

    >>> layer = ClassPrompts(10)
    >>> layer(keras.random.normal((2, 197, 192))).shape
    (2, 207, 192)

    Reference: [chowdhury2025] arXiv:2501.09333, section 2.2.
    """

    def __init__(self, num_classes, **kwargs):
        num_classes = positive_integer("num_classes", num_classes)
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.input_spec = keras.layers.InputSpec(ndim=3)

    def build(self, input_shape):
        width = input_shape[-1]
        self.prompts = self.add_weight(
            shape=(self.num_classes, width),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            name="prompts",
        )
        self.input_spec = keras.layers.InputSpec(ndim=3, axes={-1: width})

    def call(self, inputs):
        prompts = ops.cast(self.prompts, self.compute_dtype)
        shape = (ops.shape(inputs)[0], *prompts.shape)
        return ops.concatenate([ops.broadcast_to(prompts, shape), inputs], axis=1)

    def compute_output_shape(self, input_shape):
        batch, tokens, width = input_shape
        tokens = None if tokens is None else self.num_classes + tokens
        return batch, tokens, width

    def get_config(self):
        return {**super().get_config(), "num_classes": self.num_classes}
