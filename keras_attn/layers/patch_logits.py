import keras

from keras_attn._checks import positive_integer
from keras_attn.layers._maps import MapLayer
from keras_attn.ops.pooling import standardize_window, window_average


@keras.saving.register_keras_serializable(package="keras_attn")
class PatchLogits(MapLayer):
    """Class scores of the region around every cell of a feature map.

    Class embedding paper, section 3.3: `a_k = w_k . x_g + b_k`, where `x_g` is the
    average of the features in a window centred at the cell, over the cells that lie
    inside the map. Alone at an inner feature map it is the paper's auxiliary
    classifier (rows "-aux"); `keras_attn.layers.ClassEmbedding` builds on it.

    Args:
        num_classes: Number of classes, at least 1.
        window: `(rows, columns)` of the window, an integer for both, or `None` for
            half of the map, whatever its size.
        kernel_initializer: Initializer of the classifier's kernel.
        kernel_regularizer: Regularizer of the classifier's kernel.

    Call arguments:
        inputs: A feature map.

    Input shape: `(batch, height, width, channels)`; height and width may be unknown.

    Output shape: `(batch, height, width, num_classes)`, un-normalised scores in the
        layer's compute dtype. `PatchCrossentropy` casts them to float32.

    Raises:
        ValueError: If `num_classes` is not a positive integer, or for a bad window.

    Example:

    >>> features = keras.random.normal((2, 8, 8, 128))
    >>> PatchLogits(num_classes=10)(features).shape
    (2, 8, 8, 10)

    Reference: [gorgun2022] arXiv:2210.00992, section 3.3.
    """

    def __init__(
        self,
        num_classes,
        window=None,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        **kwargs,
    ):
        num_classes = positive_integer("num_classes", num_classes)
        standardize_window(window)
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.window = tuple(window) if isinstance(window, list) else window
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.input_spec = keras.layers.InputSpec(ndim=4)
        self.classifier = keras.layers.Dense(
            num_classes,
            kernel_initializer=self.kernel_initializer,
            kernel_regularizer=self.kernel_regularizer,
            dtype=self.dtype_policy,
            name="classifier",
        )

    def build(self, input_shape):
        self.classifier.build(input_shape)

    def call(self, inputs):
        return self.classifier(window_average(inputs, self.window))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.num_classes)

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "window": self.window,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }
