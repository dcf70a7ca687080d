import keras
import numpy as np
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

    The tables follow from `seed` alone and are the same on every backend, or are those
    of a model from elsewhere.

    Args:
        dimension: Length of the descriptor, at least 1.
        seed: Non-negative integer.
        hashes: `(bins, signs)`, two arrays `(2, channels)`: for each of the two
            sketches and each channel the bin, 0 to `dimension - 1`, and the sign, -1
            or 1. `None`: drawn from `seed`.

    Call arguments:
        inputs: A feature map.

    Input shape: `(batch, height, width, channels)`, any height and width.

    Output shape: `(batch, dimension)`, of unit norm, or zero for a zero map; computed
        in float32, returned in the layer's compute dtype.

    Raises:
        ValueError: If an argument is out of its range, or the hashes are not those of
            the map's channels.

    Example:

    >>> CompactBilinearPooling(64)(keras.random.normal((2, 9, 7, 16))).shape
    (2, 64)

    Reference: [gao2015] arXiv:1511.06062, algorithm 2.
    """

    def __init__(self, dimension=8192, seed=0, hashes=None, **kwargs):
        check_sketch(dimension, seed)
        hashes = checked_hashes(hashes, 2, dimension)
        super().__init__(**kwargs)
        self.dimension = dimension
        self.seed = seed
        self.hashes = hashes
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape):
        self.tables = tables_of(self, 2, input_shape[-1])

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
            "hashes": self.hashes,
        }


def check_sketch(dimension, seed):
    """Raises a ValueError for arguments that no sketch can have."""
    positive_integer("dimension", dimension)
    integer("seed", seed, 0)


def checked_hashes(hashes, count, dimension):
    """Bins and signs of `count` sketches as lists, which a config can hold, or `None`.

    Raises:
        ValueError: If they are not such arrays.
    """
    if hashes is None:
        return None
    bins, signs = (np.asarray(each) for each in hashes)
    if (
        bins.shape != signs.shape
        or bins.ndim != 2
        or len(bins) != count
        or not np.all((bins == bins.astype("int32")) & (bins >= 0) & (bins < dimension))
        or not np.all(np.abs(signs) == 1)
    ):
        raise ValueError(
            f"Expected `hashes` to be bins 0 to {dimension - 1} and signs -1 or 1, "
            f"each ({count}, channels). Received: bins of shape {bins.shape} from "
            f"{bins.min(initial=0)} to {bins.max(initial=0)}, signs of shape "
            f"{signs.shape} from {signs.min(initial=0)} to {signs.max(initial=0)}"
        )
    return [bins.astype("int32").tolist(), signs.astype("int32").tolist()]


def tables_of(layer, count, channels):
    """The bins and signs of a layer, given or drawn.

    Raises:
        ValueError: If those given are for another number of channels.
    """
    if layer.hashes is None:
        return second_moments.hash_tables(count, channels, layer.dimension, layer.seed)
    bins, signs = layer.hashes
    if len(bins[0]) != channels:
        raise ValueError(
            f"Expected `hashes` for the {channels} channels of the map. "
            f"Received: hashes for {len(bins[0])} channels"
        )
    return np.array(bins, "int32"), np.array(signs, "float32")
