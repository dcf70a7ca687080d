import numpy as np
import pytest

from keras_attn.layers import GlobalContext
from tests.harness import check_layer, example, randomize, run, to_numpy
from tests.reference.blocks import global_context

ARGUMENTS = {"ratio": 2, "activation": "gelu", "kernel_regularizer": "l2"}


def test_keeps_the_promises_of_a_layer():
    check_layer(
        GlobalContext,
        ARGUMENTS,
        (2, 7, 3, 5),
        other_shapes=[(1, 1, 1, 2)],
        expected_num_trainable_weights=8,
        expected_num_losses=3,
    )


def test_equals_the_numpy_version():
    layer = GlobalContext(ratio=2)
    inputs = example((2, 5, 7, 6))
    np.testing.assert_array_equal(to_numpy(layer(inputs)), to_numpy(inputs))
    randomize(layer)
    weights = [to_numpy(weight) for weight in layer.weights]
    wanted = [global_context(image, *weights) for image in to_numpy(inputs)]
    np.testing.assert_allclose(run(layer, inputs), wanted, atol=1e-5)


def test_refuses():
    with pytest.raises(ValueError, match="Expected `ratio`"):
        GlobalContext(ratio=0)
