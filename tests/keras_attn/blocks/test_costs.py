import keras
import pytest

from keras_attn import block_cost, multiply_adds, trainable_params
from keras_attn.layers import get_block, list_blocks

NEEDED = {"class_embedding": {"num_classes": 4}}


@pytest.mark.parametrize("block", list_blocks())
def test_costs_are_those_of_the_layer(block):
    inputs = keras.Input((6, 5, 12))
    arguments = NEEDED.get(block, {})
    layer = get_block(block, inputs.shape, **arguments)
    model = keras.Model(inputs, layer(inputs))
    cost = block_cost(block, (6, 5), 12, **arguments)
    assert cost == (trainable_params(model), multiply_adds(model))


def test_by_hand():
    # 9 + 49 kernels and such: two dense layers without bias, a 7 x 7 convolution.
    assert block_cost("cbam", (6, 5), 32) == (2 * 32 * 2 + 99, 256 + 30 * 98)
    assert block_cost("eca", (6, 5), 32) == (3, 96)
    assert block_cost("simam", (6, 5), 32) == (0, 0)
    units = 4
    context = 33 + 33 * units + 2 * units + 32 * (units + 1)
    assert block_cost("global_context", (6, 5), 32) == (context, 2 * 32 * (30 + units))
    coordinates = 33 * 8 + 2 * 8 + 2 * 32 * 9
    cost = block_cost("coordinate_attention", (6, 5), 32)
    assert cost == (coordinates, 2 * 11 * 32 * 8)


def test_weights_are_not_made():
    # Hundreds of gigabytes if they were.
    assert block_cost("spatial_transformer", (4096, 4096), 8).parameters > 10**11
