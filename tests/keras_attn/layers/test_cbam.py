import numpy as np
import pytest

from keras_attn.graph.receptive_field import receptive_field
from keras_attn.layers import CBAM
from tests.harness import check_layer, example, functional, randomize, run, to_numpy
from tests.reference.blocks import cbam

ARGUMENTS = {
    "ratio": 2,
    "kernel_size": 3,
    "activation": "gelu",
    "gate_activation": "hard_sigmoid",
    "kernel_regularizer": "l2",
}


def test_keeps_the_promises_of_a_layer():
    check_layer(
        CBAM,
        ARGUMENTS,
        (2, 7, 3, 5),
        other_shapes=[(1, 1, 1, 2)],
        expected_num_trainable_weights=4,
        expected_num_losses=3,
    )


@pytest.mark.parametrize("kernel_size", [4, 7])
def test_equals_the_numpy_version(kernel_size):
    layer = CBAM(ratio=2, kernel_size=kernel_size)
    inputs = example((2, 5, 7, 6))
    layer(inputs)
    randomize(layer)
    weights = [to_numpy(weight) for weight in layer.weights]
    wanted = [cbam(image, *weights) for image in to_numpy(inputs)]
    np.testing.assert_allclose(run(layer, inputs), wanted, atol=1e-5)


def test_a_cell_sees_the_kernel_and_through_the_gate_of_channels_everything():
    field = receptive_field(functional(CBAM(name="cbam"), (1, 9, 9, 4)), "cbam")
    assert field.size == (7, 7) and field.ignored == ("cbam",)


@pytest.mark.parametrize("argument", ["ratio", "kernel_size"])
def test_refuses(argument):
    with pytest.raises(ValueError, match=f"Expected `{argument}`"):
        CBAM(**{argument: 0})
