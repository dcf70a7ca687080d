import keras
from keras import ops

from keras_attn._checks import integer, positive_integer
from keras_attn.layers._maps import MapLayer
from keras_attn.ops import second_moments


@keras.saving.register_keras_serializable(package="keras_attn")
class CompactBilinearPooling(MapLayer):
    """Bilinear pooling in fewer dimensions, by random sketches.

    Gao et al., "Compact Bilinear Pooling", algorithm 2 (tensor sketch): inner products
    of the pooled sketches are, in expectation over the random tables, those of the
    pooled outer products. Signed square root and L2 norm as in `BilinearPooling`.

    The tables follow from `seed` alone and are the same on every backend.

    Args:
        dimension: Length of the descriptor, at least 1.
        seed: Non-negative integer.

    Call arguments:
        inputs: A feature map.

    Input shape: `(batch, height, width, channels)`, any height and width.

    Output shape: `(batch, dimension)`, of unit norm, or zero for a zero map; computed
        in float32, returned in the layer's compute dtype.

    Raises:
        ValueError: If `dimension` or `seed` is not such an integer.

    Example:

    >>> CompactBilinearPooling(64)(keras.random.normal((2, 9, 7, 16))).shape
    (2, 64)

    Reference: [gao2015] arXiv:1511.06062, algorithm 2.
    """

    def __init__(self, dimension=8192, seed=0, **kwargs):
        check_sketch(dimension, seed)
        super().__init__(**kwargs)
        self.dimension = dimension
        self.seed = seed
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape):
        self.tables = second_moments.hash_tables(
            2, input_shape[-1], self.dimension, self.seed
        )

    def call(self, inputs):
        products = second_moments.outer_product_mean(inputs)
        bins, signs = self.tables
        sketch = second_moments.outer_product_sketch(
            products, bins, signs, self.dimension
        )
        descriptor = second_moments.l2_normalize(second_moments.signed_sqrt(sketch))
        return ops.cast(descriptor, self.compute_dtype)

    def window_steps(self):
        return None

    def multiply_adds(self, input_shape):
        _, height, width, channels = input_shape
        # The outer products, and their sums in the bins.
        return (height * width + 1) * channels**2

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.dimension)

    def get_config(self):
        return {
            **super().get_config(),
            "dimension": self.dimension,
            "seed": self.seed,
        }


def check_sketch(dimension, seed):
    """Raises a ValueError for arguments that no sketch can have."""
    positive_integer("dimension", dimension)
    integer("seed", seed, 0)
