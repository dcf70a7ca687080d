import numpy as np
import pytest

from keras_attn.layers import CoordinateAttention
from tests.harness import check_layer, example, randomize, run, to_numpy
from tests.reference.blocks import coordinate_attention

ARGUMENTS = {
    "ratio": 2,
    "activation": "gelu",
    "gate_activation": "hard_sigmoid",
    "kernel_regularizer": "l2",
}


def test_keeps_the_promises_of_a_layer():
    check_layer(
        CoordinateAttention,
        ARGUMENTS,
        (2, 7, 3, 18),
        other_shapes=[(1, 1, 1, 2)],
        expected_num_trainable_weights=8,
        expected_num_non_trainable_weights=2,
        expected_num_losses=3,
    )


def test_equals_the_numpy_version():
    layer = CoordinateAttention()
    inputs = example((2, 5, 7, 6))
    layer(inputs)
    randomize(layer)
    weights = [to_numpy(weight) for weight in layer.weights]
    wanted = [coordinate_attention(image, *weights) for image in to_numpy(inputs)]
    np.testing.assert_allclose(run(layer, inputs), wanted, atol=1e-5)


def test_refuses():
    with pytest.raises(ValueError, match="Expected `ratio`"):
        CoordinateAttention(ratio=0)
