import numpy as np

from keras_attn.layers.bilinear_pooling import BilinearPooling
from tests.harness import check_layer, example, run, to_numpy
from tests.keras_attn.layers.difficult_maps import (
    check_difficult_maps,
    check_half_precision,
)
from tests.reference import second_moments as reference

MAP = (2, 7, 3, 5)


def test_keeps_the_promises_of_a_layer():
    check_layer(BilinearPooling, {}, MAP)
    assert BilinearPooling().compute_output_shape((2, 28, 28, 256)) == (2, 65_536)


def test_equals_the_numpy_version():
    maps = example(MAP)
    wanted = [reference.bilinear(image) for image in to_numpy(maps)]
    found = run(BilinearPooling(), maps)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1.0, atol=1e-5)


def test_difficult_maps_and_half_precision():
    # The signed square root alone has slopes of up to 5000.
    check_difficult_maps(BilinearPooling, {}, 1e4)
    check_half_precision(BilinearPooling, {})


def test_cost_is_that_of_the_outer_products():
    assert BilinearPooling().multiply_adds((None, 7, 3, 5)) == 7 * 3 * 5 * 5
