import keras
from keras import ops

from keras_attn._checks import one_of, positive_integer
from keras_attn.layers._maps import MapLayer

AGGREGATIONS = ("sum", "mean")


@keras.saving.register_keras_serializable(package="keras_attn")
class ClassEvidence(MapLayer):
    """Class logits as a sum of the contributions of all cells.

    AnchorNet paper, section 3.2. With features `X` and spatial attention `S` of a
    branch, a linear 1x1 convolution gives `F = X W + b`, the logits of every cell, and

    - `evidence = F * S`, the contribution of each cell to each class,
    - `logits = sum over cells of evidence`.

    The paper averages over the cells instead (`aggregation="mean"`), which divides
    both once more by the number of cells, as `S` sums to one already. With `"sum"`,
    uniform attention gives plain global average pooling. Features without attention
    get exactly that: the evidence is then their class activation map, divided by the
    number of cells.

    The sum is linear, so `logits` are computed from the pooled features; the evidence
    of all cells costs nothing where it is not used.

    Args:
        num_classes: Number of classes, at least 1.
        aggregation: `"sum"` or `"mean"`.
        weighted: If `False`, `evidence` is the plain `F`, without attention.
        kernel_regularizer: Regularizer of `W`.

    Call arguments:
        inputs: List of features and attention, or the features alone.

    Input shape: a list of features `(batch, height, width, channels)` and attention
        `(batch, height, width, 1)`, or the features alone.

    Output shape: a dict `{"evidence": (batch, height, width, num_classes), "logits":
        (batch, num_classes)}` in the layer's compute dtype.

    Raises:
        ValueError: For an unknown aggregation or a bad number of classes.

    Example:

    >>> features = keras.random.normal((2, 21, 21, 96))
    >>> attention = keras.ops.ones((2, 21, 21, 1)) / 441
    >>> outputs = ClassEvidence(10)([features, attention])
    >>> outputs["evidence"].shape, outputs["logits"].shape
    ((2, 21, 21, 10), (2, 10))

    Reference: [yang2020] arXiv:2002.03737, section 3.2.
    """

    def __init__(
        self,
        num_classes,
        aggregation="sum",
        weighted=True,
        kernel_regularizer=None,
        **kwargs,
    ):
        num_classes = positive_integer("num_classes", num_classes)
        one_of("aggregation", aggregation, AGGREGATIONS)
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.aggregation = aggregation
        self.weighted = weighted
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape):
        features = _features_of(input_shape)
        self.classifier = keras.layers.Dense(
            self.num_classes,
            kernel_regularizer=self.kernel_regularizer,
            dtype=self.dtype_policy,
            name="classifier",
        )
        self.classifier.build(features)

    def call(self, inputs):
        if isinstance(inputs, (list, tuple)):
            features, attention = inputs
        else:
            features = inputs
            attention = _uniform_attention(features)
        weights = attention
        if self.aggregation == "mean":
            rows, columns = ops.shape(attention)[1:3]
            weights = attention / ops.cast(rows * columns, attention.dtype)
        # Of the mean of the cells by their weights, the classifier is that of the sum.
        total = ops.sum(weights, axis=(1, 2))
        pooled = ops.sum(features * weights, axis=(1, 2))
        logits = self.classifier(pooled / ops.where(total == 0, 1, total)) * total
        evidence = self.classifier(features)
        if self.weighted:
            evidence = evidence * weights
        return {"evidence": evidence, "logits": logits}

    def window_steps(self):
        return []

    def multiply_adds(self, input_shape):
        _, height, width, channels = input_shape
        # The classifier at every cell, and the weighted sum over the cells.
        return height * width * (channels + 1) * self.num_classes

    def compute_output_shape(self, input_shape):
        features = _features_of(input_shape)
        return {
            "evidence": (*features[:-1], self.num_classes),
            "logits": (features[0], self.num_classes),
        }

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "aggregation": self.aggregation,
            "weighted": self.weighted,
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }


def _features_of(input_shape):
    """The shape of the features, which come with or without attention."""
    paired = isinstance(input_shape[0], (list, tuple))
    return input_shape[0] if paired else input_shape


def _uniform_attention(features):
    ones = ops.ones_like(features[..., :1])
    return ones / ops.sum(ones, axis=(1, 2), keepdims=True)
