import keras
import numpy as np
import pytest

from keras_attn.layers.isqrt_cov_pooling import ISQRTCOVPooling
from tests.harness import check_layer, example, run, to_numpy
from tests.keras_attn.layers.difficult_maps import (
    check_difficult_maps,
    check_half_precision,
)
from tests.reference import second_moments as reference

MAP = (2, 7, 3, 5)


def test_keeps_the_promises_of_a_layer():
    check_layer(ISQRTCOVPooling, {"iterations": 3}, MAP)
    assert ISQRTCOVPooling().compute_output_shape((2, 28, 28, 256)) == (2, 32_896)


@pytest.mark.parametrize("iterations", [1, 5])
def test_equals_the_published_recursion(iterations):
    maps = example(MAP)
    roots = [
        reference.newton_schulz_root(reference.covariance(image), iterations)
        for image in to_numpy(maps)
    ]
    wanted = [reference.upper_triangle(root) for root in roots]
    found = run(ISQRTCOVPooling(iterations), maps)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_maps_of_unknown_size():
    inputs = keras.Input((None, None, 5))
    model = keras.Model(inputs, ISQRTCOVPooling()(inputs))
    maps = example(MAP)
    turned = keras.ops.transpose(maps, (0, 2, 1, 3))
    # The cells are a set: their order and arrangement do not matter.
    np.testing.assert_allclose(run(model, maps), run(model, turned), atol=1e-5)


def test_difficult_maps_and_half_precision():
    check_difficult_maps(ISQRTCOVPooling, {}, 100.0)
    check_half_precision(ISQRTCOVPooling, {})


def test_cost_is_that_of_the_matrix_products():
    costs = [
        ISQRTCOVPooling(iterations).multiply_adds((None, 7, 3, 5)) - 21 * 25
        for iterations in (1, 2, 5)
    ]
    assert costs == [125, 3 * 125, 12 * 125]


@pytest.mark.parametrize("iterations", [0, 2.5])
def test_refuses_a_bad_number_of_iterations(iterations):
    with pytest.raises(ValueError, match="Expected `iterations`"):
        ISQRTCOVPooling(iterations)
