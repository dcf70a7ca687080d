import keras
import numpy as np
import pytest

from keras_attn.layers.kernel_pooling import KernelPooling
from keras_attn.ops.second_moments import hash_tables
from tests.harness import check_layer, example, gradients, run, to_numpy
from tests.keras_attn.layers.difficult_maps import (
    check_difficult_maps,
    check_half_precision,
)
from tests.reference import second_moments as reference

MAP = (2, 7, 3, 5)
# No bin is left empty: it would hold rounding noise, which the root blows up.
ARGUMENTS = {"degree": 3, "dimension": 8, "gamma": 0.5, "seed": 3}
HASHES = [table.astype("int32").tolist() for table in hash_tables(3, 5, 8, 5)]


def test_keeps_the_promises_of_a_layer():
    arguments = {**ARGUMENTS, "hashes": HASHES}
    check_layer(KernelPooling, arguments, MAP, expected_num_trainable_weights=1)
    layer = KernelPooling()
    assert layer.compute_output_shape((2, 28, 28, 256)) == (2, 1 + 256 + 3 * 4096)


@pytest.mark.parametrize("hashes", [None, HASHES])
def test_equals_the_numpy_version(hashes):
    layer = KernelPooling(**ARGUMENTS, hashes=hashes)
    maps = example(MAP)
    tables = hash_tables(3, 5, 8, 5 if hashes else 3)
    start = reference.gaussian_kernel_weights(0.5, 3)
    for weights in (start, [-0.5, 0.1, 2.0, 0.7]):
        if weights is not start:
            layer.degree_weights.assign(weights)
        wanted = [
            reference.kernel(image, weights, *tables, 8) for image in to_numpy(maps)
        ]
        np.testing.assert_allclose(run(layer, maps), wanted, atol=2e-5)


def test_weights_start_as_the_power_series_of_the_gaussian_kernel():
    layer = KernelPooling(degree=9, gamma=0.8)
    layer.build((None, 7, 3, 5))
    squares = to_numpy(layer.degree_weights) ** 2
    for similarity in (1.0, 0.3, -0.7):
        series = np.sum(squares * similarity ** np.arange(10))
        distance = 2 - 2 * similarity
        np.testing.assert_allclose(series, np.exp(-0.8 * distance), atol=1e-4)


def test_difficult_maps_and_half_precision():
    check_difficult_maps(KernelPooling, ARGUMENTS, 1e4)
    check_half_precision(KernelPooling, ARGUMENTS)


def test_weights_stay_float32_in_half_precision():
    layer = KernelPooling(**ARGUMENTS, dtype="mixed_bfloat16")
    maps = example(MAP)
    layer(maps)
    state = [variable.value for variable in layer.non_trainable_variables]

    def loss(weights):
        (output, _) = layer.stateless_call([weights], state, maps)
        return keras.ops.sum(keras.ops.cast(output, "float32")[:, :3])

    (gradient,) = gradients(loss, to_numpy(layer.degree_weights))
    assert gradient.dtype == "float32" and np.all(gradient != 0)


def test_cost_is_that_of_spectra_and_their_products():
    cells, frequencies = 7 * 3, 5
    cost = KernelPooling(**ARGUMENTS).multiply_adds((None, 7, 3, 5))
    assert cost == cells * (3 * 5 * 2 * frequencies + 2 * 4 * frequencies)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"degree": 1}, "Expected `degree`.*degree=1"),
        ({"gamma": 0.0}, "Expected `gamma`.*gamma=0.0"),
        ({"dimension": 0}, "Expected `dimension`.*dimension=0"),
        ({"dimension": 65_537}, "at most 65536.*dimension=65537"),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        KernelPooling(**arguments)
