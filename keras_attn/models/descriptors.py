"""Poolings of the last map of a backbone to a descriptor, by name."""

from keras import layers

from keras_attn._checks import one_of
from keras_attn.layers.bilinear_pooling import BilinearPooling
from keras_attn.layers.compact_bilinear_pooling import CompactBilinearPooling
from keras_attn.layers.cross_dimensional_pooling import CrossDimensionalPooling
from keras_attn.layers.generalized_mean_pooling import GeneralizedMeanPooling
from keras_attn.layers.isqrt_cov_pooling import ISQRTCOVPooling
from keras_attn.layers.kernel_pooling import KernelPooling
from keras_attn.layers.mpn_cov_pooling import MPNCOVPooling
from keras_attn.layers.regional_max_pooling import RegionalMaxPooling
from keras_attn.models.building import convolution, normalized_relu

# First order; these take the map as it is, and in retrieval are named SPoC, MAC, GeM,
# R-MAC and CroW.
FIRST_ORDER = {
    "average": layers.GlobalAveragePooling2D,
    "maximum": layers.GlobalMaxPooling2D,
    "generalized_mean": GeneralizedMeanPooling,
    "regional_maximum": RegionalMaxPooling,
    "cross_dimensional": CrossDimensionalPooling,
}
SECOND_ORDER = {
    "bilinear": BilinearPooling,
    "compact_bilinear": CompactBilinearPooling,
    "kernel": KernelPooling,
    "mpn_cov": MPNCOVPooling,
    "isqrt_cov": ISQRTCOVPooling,
}
POOLINGS = {**FIRST_ORDER, **SECOND_ORDER}


def pool(x, name, reduced_channels=256, weight_decay=0.0):
    """The descriptor of a map, with the channels reduced before second-order pooling.

    A 1x1 convolution without bias, batch normalisation and ReLU reduce the channels,
    as in the fast MPN-COV and iSQRT-COV networks, since second-order descriptors grow
    with their square. First-order poolings take the map as it is.

    Args:
        x: Map `(batch, height, width, channels)` of a functional model.
        name: One of `POOLINGS`.
        reduced_channels: Channels after the reduction, or `None` for no reduction.
        weight_decay: L2 penalty on the kernel of the reduction.

    Returns:
        `(batch, D)`, from a layer named `"pool"` after layers named `"reduction..."`.

    Raises:
        ValueError: If there is no pooling of that name.

    Example:

    >>> inputs = keras.Input((14, 14, 2048))
    >>> pool(inputs, "isqrt_cov").shape
    (None, 32896)
    """
    one_of("name", name, POOLINGS)
    if name in SECOND_ORDER and reduced_channels is not None:
        x = convolution(x, reduced_channels, 1, "reduction", decay=weight_decay)
        x = normalized_relu(x, "reduction")
    return POOLINGS[name](name="pool")(x)
