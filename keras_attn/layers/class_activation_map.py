import keras
from keras import ops

from keras_attn._checks import pair
from keras_attn.graph.head import without_activation, wrapped
from keras_attn.layers._maps import MapLayer


@keras.saving.register_keras_serializable(package="keras_attn")
class ClassActivationMap(MapLayer):
    """Contribution of every cell to the logits of a pooled linear classifier.

    Zhou et al., "Learning Deep Features for Discriminative Localization". A classifier
    `logits = mean(X) W + b`, with the mean over the `n` cells of the features `X`, is
    a sum over cells:

    - `evidence = X W / n`, a 1x1 convolution, for all classes at once,
    - `logits = sum over cells of evidence + b`.

    The weights are those of the `classifier` itself, not a copy. It is called as it is,
    so that it may be quantised, have LoRA weights or normalise its kernel.

    Args:
        classifier: The `Dense` layer, which may be wrapped, such as in
            `SpectralNormalization`. Its activation is left out.
        patch_size: Side of the patches that the cells stand for, an integer or
            `(rows, columns)`, centred where the cells' receptive fields are; `None`:
            the receptive fields themselves. Kept for
            `keras_attn.models.branches_of`; the computation does not use it.

    Call arguments:
        inputs: A feature map.

    Input shape: `(batch, height, width, channels)`.

    Output shape: a dict `{"evidence": (batch, height, width, classes), "logits":
        (batch, classes)}` in the layer's compute dtype.

    Raises:
        ValueError: If `classifier` is not a `Dense` layer or `patch_size` not positive.

    Example:

    >>> classifier = keras.layers.Dense(10)
    >>> outputs = ClassActivationMap(classifier)(keras.random.normal((2, 7, 5, 16)))
    >>> outputs["evidence"].shape, outputs["logits"].shape
    ((2, 7, 5, 10), (2, 10))

    Reference: [zhou2015] arXiv:1512.04150.
    """

    def __init__(self, classifier, patch_size=None, **kwargs):
        if not isinstance(wrapped(classifier), keras.layers.Dense):
            raise ValueError(
                f"Expected `classifier` to be a Dense layer. Received: {classifier!r}"
            )
        if patch_size is not None:
            pair("patch_size", patch_size, minimum=1)
        super().__init__(**kwargs)
        self.classifier = classifier
        self.patch_size = patch_size
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape):
        if not self.classifier.built:
            self.classifier.build((None, input_shape[-1]))

    def call(self, inputs):
        linear = without_activation(self.classifier)
        rows, columns = ops.shape(inputs)[1:3]
        # The sum over the cells, where it takes the fewest operations.
        logits = linear(ops.mean(inputs, axis=(1, 2)))
        bias = linear(ops.zeros_like(inputs[:1, 0, 0]), training=False)
        evidence = linear(inputs, training=False) - bias
        evidence = ops.cast(evidence, inputs.dtype)
        return {
            "evidence": evidence / ops.cast(rows * columns, inputs.dtype),
            "logits": ops.cast(logits, inputs.dtype),
        }

    def window_steps(self):
        return []

    def multiply_adds(self, input_shape):
        _, height, width, channels = input_shape
        # The evidence of every cell, and the logits.
        return (height * width + 1) * channels * wrapped(self.classifier).units

    def compute_output_shape(self, input_shape):
        units = wrapped(self.classifier).units
        return {
            "evidence": (*input_shape[:-1], units),
            "logits": (input_shape[0], units),
        }

    def get_config(self):
        return {
            **super().get_config(),
            "classifier": keras.saving.serialize_keras_object(self.classifier),
            "patch_size": self.patch_size,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["classifier"] = keras.saving.deserialize_keras_object(
            config["classifier"]
        )
        return cls(**config)
