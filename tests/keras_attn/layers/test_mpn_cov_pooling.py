import keras
import numpy as np
import pytest

from keras_attn.layers.mpn_cov_pooling import MPNCOVPooling
from tests.harness import check_layer, example, run, to_numpy
from tests.keras_attn.layers.difficult_maps import (
    check_difficult_maps,
    check_half_precision,
    difficult_maps,
)
from tests.reference import second_moments as reference

MAP = (2, 7, 3, 5)


def test_keeps_the_promises_of_a_layer():
    check_layer(MPNCOVPooling, {}, MAP)
    assert MPNCOVPooling().compute_output_shape((2, 28, 28, 256)) == (2, 32_896)


def test_equals_the_root_of_the_covariance():
    maps = example(MAP)
    wanted = [
        reference.upper_triangle(reference.eigen_root(reference.covariance(image)))
        for image in to_numpy(maps)
    ]
    np.testing.assert_allclose(run(MPNCOVPooling(), maps), wanted, atol=1e-5)


def test_difficult_maps_and_half_precision():
    check_difficult_maps(MPNCOVPooling, {}, 100.0)
    check_half_precision(MPNCOVPooling, {})


def test_gradient_under_xla():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("JAX always compiles, torch never")
    import tensorflow as tf

    layer, maps = MPNCOVPooling(), tf.constant(difficult_maps()[2])

    def gradient(maps):
        with tf.GradientTape() as tape:
            tape.watch(maps)
            value = tf.reduce_sum(layer(maps) ** 2)
        return tape.gradient(value, maps)

    found = tf.function(gradient, jit_compile=True)(maps).numpy()
    wanted = gradient(maps).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)


def test_cost_leaves_the_decomposition_out():
    assert MPNCOVPooling().multiply_adds((None, 7, 3, 5)) == 21 * 25 + 125
