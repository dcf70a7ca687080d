import math

import keras
import numpy as np
from keras import ops

from keras_attn._checks import integer, positive_number
from keras_attn.layers._maps import MapLayer
from keras_attn.layers.compact_bilinear_pooling import (
    check_sketch,
    checked_hashes,
    tables_of,
)
from keras_attn.ops import second_moments
from keras_attn.ops.precision import float32_at_least

# Products of bins and frequencies are 32-bit integers.
LARGEST_DIMENSION = 65_536


@keras.saving.register_keras_serializable(package="keras_attn")
class KernelPooling(MapLayer):
    """Pools features whose inner products are a kernel: a learned power series.

    Cui et al., "Kernel Pooling for Convolutional Neural Networks", section 3: with
    descriptors `x` of unit norm, `[a_0, a_1 x, a_2 TS_2(x), a_3 TS_3(x), ...]`, where
    `TS_p` is the tensor sketch of degree p, whose inner products are `(x . y)^p` in
    expectation. Averaged over the cells, then the signed square root and the L2 norm.

    The weights start as those of the Gaussian kernel `exp(-gamma |x - y|^2)`,
    `a_p^2 = exp(-2 gamma) (2 gamma)^p / p!`, and are learned.

    Every cell has a sketch for each degree, which takes memory: about
    `2 * degree * dimension` numbers per cell in training.

    Args:
        degree: Highest power, at least 2.
        dimension: Length of each sketch, 1 to 65,536.
        gamma: Positive number, that of the kernel at the start.
        seed: Non-negative integer that determines the random tables, the same on every
            backend.
        hashes: `(bins, signs)` of `degree` sketches in place of those tables, see
            `CompactBilinearPooling`.

    Call arguments:
        inputs: A feature map.

    Input shape: `(batch, height, width, channels)`, any height and width.

    Output shape: `(batch, 1 + channels + (degree - 1) * dimension)`, of unit norm;
        computed in float32, returned in the layer's compute dtype.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> KernelPooling(dimension=32)(keras.random.normal((2, 9, 7, 16))).shape
    (2, 113)

    Reference: [cui2017], section 3.
    """

    def __init__(
        self, degree=4, dimension=4096, gamma=1.0, seed=0, hashes=None, **kwargs
    ):
        degree = integer("degree", degree, 2)
        check_sketch(dimension, seed)
        hashes = checked_hashes(hashes, degree, dimension)
        if dimension > LARGEST_DIMENSION:
            raise ValueError(
                f"Expected `dimension` to be at most {LARGEST_DIMENSION}. "
                f"Received: dimension={dimension}"
            )
        positive_number("gamma", gamma)
        super().__init__(**kwargs)
        self.degree = degree
        self.dimension = dimension
        self.gamma = gamma
        self.seed = seed
        self.hashes = hashes
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape):
        self.degree_weights = self.add_weight(
            shape=(self.degree + 1,),
            initializer=self._gaussian_kernel,
            # Computed with in float32, whatever the compute dtype.
            autocast=False,
            name="degree_weights",
        )
        self.tables = tables_of(self, self.degree, input_shape[-1])

    def _gaussian_kernel(self, shape, dtype=None):
        squares = [
            math.exp(-2 * self.gamma) * (2 * self.gamma) ** p / math.factorial(p)
            for p in range(self.degree + 1)
        ]
        return ops.convert_to_tensor(np.sqrt(squares), dtype=dtype)

    def call(self, inputs):
        features = second_moments.l2_normalize(float32_at_least(inputs))
        first = ops.mean(features, axis=(1, 2))
        bins, signs = self.tables
        means = [
            ops.ones_like(first[:, :1]),
            first,
            *second_moments.tensor_sketch_means(features, bins, signs, self.dimension),
        ]
        weights = ops.cast(self.degree_weights, features.dtype)
        weighted = [weights[p] * mean for p, mean in enumerate(means)]
        series = second_moments.signed_sqrt(ops.concatenate(weighted, axis=-1))
        return ops.cast(second_moments.l2_normalize(series), self.compute_dtype)

    def window_steps(self):
        return None

    def multiply_adds(self, input_shape):
        _, height, width, channels = input_shape
        frequencies = self.dimension // 2 + 1
        # Per cell: the spectra of the count sketches, and their complex products.
        spectra = self.degree * channels * 2 * frequencies
        products = (self.degree - 1) * 4 * frequencies
        return height * width * (spectra + products)

    def compute_output_shape(self, input_shape):
        length = 1 + input_shape[-1] + (self.degree - 1) * self.dimension
        return (input_shape[0], length)

    def get_config(self):
        return {
            **super().get_config(),
            "degree": self.degree,
            "dimension": self.dimension,
            "gamma": self.gamma,
            "seed": self.seed,
            "hashes": self.hashes,
        }
