"""Cost of a block on a map, without its weights being made."""

from typing import Any, NamedTuple

import keras

from keras_attn.graph.costs import multiply_adds, trainable_params
from keras_attn.graph.keras_graph import unweighted
from keras_attn.layers import get_block


class BlockCost(NamedTuple):
    """Cost of a block on a map.

    Args:
        parameters: Number of trainable scalars.
        multiply_adds: For one image, see `keras_attn.multiply_adds`.
    """

    parameters: int
    multiply_adds: int


def block_cost(
    block: str, size: tuple[int, int], channels: int, **arguments: Any
) -> BlockCost:
    """Cost of a block by name on a map.

    Args:
        block, **arguments: See `keras_attn.layers.get_block`.
        size: Rows and columns of the map.
        channels: Channels of the map.

    Raises:
        ValueError: If there is no such block, or it cannot be made for such a map.

    Example:

    >>> block_cost("squeeze_excitation", (7, 7), 512)
    BlockCost(parameters=33312, multiply_adds=32768)
    """
    with unweighted():
        inputs = keras.Input((*size, channels))
        layer = get_block(block, inputs.shape, **arguments)
        model = keras.Model(inputs, layer(inputs))
        return BlockCost(trainable_params(model), multiply_adds(model))
