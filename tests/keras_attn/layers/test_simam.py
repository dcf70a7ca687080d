import numpy as np
import pytest

from keras_attn.layers import SimAM
from tests.harness import check_layer, example, run, to_numpy
from tests.reference.blocks import simam


def test_keeps_the_promises_of_a_layer():
    check_layer(
        SimAM,
        {"epsilon": 0.01},
        (2, 7, 3, 5),
        other_shapes=[(1, 1, 1, 2)],
        expected_num_trainable_weights=0,
        run_training_check=False,
    )


def test_equals_the_numpy_version():
    inputs = example((2, 5, 7, 6))
    wanted = [simam(image, 1e-4) for image in to_numpy(inputs)]
    np.testing.assert_allclose(run(SimAM(), inputs), wanted, atol=1e-5)


def test_a_map_of_one_cell_is_halved_and_more():
    # Nothing differs from the mean: sigmoid(1 / 2).
    np.testing.assert_allclose(SimAM()(np.ones((1, 1, 1, 2))), 0.62246, atol=1e-4)


def test_refuses():
    with pytest.raises(ValueError, match="Expected `epsilon`"):
        SimAM(0)
