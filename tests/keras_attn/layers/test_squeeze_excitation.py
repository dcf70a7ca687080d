import numpy as np
import pytest

from keras_attn.layers import SqueezeExcitation
from tests.harness import check_layer, example, randomize, run, to_numpy
from tests.reference.anchornet import squeeze_excitation

ARGUMENTS = {
    "units": 3,
    "ratio": 2,
    "activation": "gelu",
    "gate_activation": "sigmoid",
    "kernel_regularizer": "l2",
}


def test_keeps_the_promises_of_a_layer():
    check_layer(
        SqueezeExcitation,
        ARGUMENTS,
        (2, 7, 3, 5),
        other_shapes=[(1, 1, 1, 2)],
        expected_num_trainable_weights=4,
        expected_num_losses=2,
    )


def test_equals_the_numpy_version():
    layer = SqueezeExcitation(3)
    inputs = example((2, 5, 7, 6))
    layer(inputs)
    randomize(layer)
    weights = [to_numpy(weight) for weight in layer.weights]
    wanted = [
        squeeze_excitation(image, weights[:2], weights[2:])
        for image in to_numpy(inputs)
    ]
    np.testing.assert_allclose(run(layer, inputs), wanted, atol=1e-5)


def test_a_gate_that_is_open_or_shut():
    layer = SqueezeExcitation(2)
    inputs = example((2, 4, 4, 3))
    layer(inputs)
    layer.excite.kernel.assign(np.zeros((2, 3)))
    layer.excite.bias.assign([3.0, -3.0, 0.0])
    wanted = to_numpy(inputs) * np.array([1.0, 0.0, 0.5])
    np.testing.assert_allclose(run(layer, inputs), wanted, atol=1e-6)


@pytest.mark.parametrize("units", [0, -1, 2.5])
def test_refuses_a_bad_width(units):
    with pytest.raises(ValueError, match="Expected `units`"):
        SqueezeExcitation(units)
