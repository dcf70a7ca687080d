import keras
from keras import ops

from keras_attn._checks import positive_integer
from keras_attn.ops.global_pooling import l2_normalize


@keras.saving.register_keras_serializable(package="keras_attn")
class Whitening(keras.layers.Layer):
    """Whitens descriptors: `(x - mean) projection`, scaled to length one.

    Its weights come from `keras_attn.retrieval.whitening`, as
    `layer.set_weights(pca_whitening(descriptors, dimensions))`; before that it keeps
    the first dimensions of `x`. They can be trained further, as Radenovic et al.,
    "Fine-tuning CNN Image Retrieval with No Human Annotation", do; `trainable=False`
    leaves them as they were learned.

    Args:
        dimensions: Number of dimensions to keep, or `None` for all.
        epsilon: Added to lengths before dividing by them.

    Call arguments:
        inputs: Descriptors.

    Input shape: `(batch, dimension)`, descriptors.

    Output shape: `(batch, dimensions)`, of length one, in the layer's compute dtype.

    Raises:
        ValueError: If `dimensions` is not a positive integer, or if it is larger than
            the dimension of the input.

    Example:

    >>> layer = Whitening(5)
    >>> layer(keras.random.normal((2, 16))).shape
    (2, 5)

    Reference: [radenovic2017] arXiv:1711.02512.
    """

    def __init__(self, dimensions=None, epsilon=1e-6, **kwargs):
        dimensions = positive_integer("dimensions", dimensions, optional=True)
        super().__init__(**kwargs)
        self.dimensions = dimensions
        self.epsilon = epsilon
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def build(self, input_shape):
        dimension = input_shape[-1]
        kept = self.dimensions or dimension
        if kept > dimension:
            raise ValueError(
                f"Expected descriptors of at least {kept} dimensions. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        self.mean = self.add_weight(
            shape=(dimension,), initializer="zeros", name="mean"
        )
        # The first columns of the identity.
        self.projection = self.add_weight(
            shape=(dimension, kept), initializer="identity", name="projection"
        )

    def call(self, inputs):
        projected = ops.matmul(inputs - self.mean, self.projection)
        return l2_normalize(projected, self.epsilon)

    def multiply_adds(self, input_shape):
        return input_shape[-1] * (self.dimensions or input_shape[-1])

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.dimensions or input_shape[-1])

    def get_config(self):
        return {
            **super().get_config(),
            "dimensions": self.dimensions,
            "epsilon": self.epsilon,
        }
