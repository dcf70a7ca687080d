import keras
import numpy as np
import pytest
from keras import ops

from keras_attn.ops import window_average
from tests.harness import gradients
from tests.reference.class_embedding import window_average as reference


@pytest.mark.parametrize(
    "height, width, window",
    [(8, 8, (4, 4)), (7, 5, (3, 2)), (11, 3, (5, 1)), (2, 13, (9, 9)), (1, 1, (1, 1))],
)
def test_equals_a_double_loop(height, width, window):
    maps = np.random.default_rng(0).normal(size=(2, height, width, 3))
    maps = maps.astype("float32")
    averages = ops.convert_to_numpy(window_average(ops.convert_to_tensor(maps), window))
    np.testing.assert_allclose(averages, reference(maps, window), atol=1e-6)


@pytest.mark.parametrize(
    "height, width, half", [(8, 8, (4, 4)), (7, 5, (3, 2)), (1, 3, (1, 1))]
)
def test_default_window_is_half_the_map_and_at_least_a_cell(height, width, half):
    maps = np.random.default_rng(1).normal(size=(1, height, width, 2))
    maps = ops.convert_to_tensor(maps.astype("float32"))
    np.testing.assert_allclose(
        ops.convert_to_numpy(window_average(maps)),
        ops.convert_to_numpy(window_average(maps, half)),
        atol=1e-6,
    )


def test_constant_map_stays_constant_up_to_the_borders():
    maps = ops.full((2, 6, 9, 1), 3.7)
    averages = ops.convert_to_numpy(window_average(maps, (4, 5)))
    np.testing.assert_allclose(averages, 3.7, rtol=1e-6)


def test_even_window_reaches_one_cell_less_before_than_after():
    maps = np.zeros((1, 1, 8, 1), "float32")
    maps[0, 0, 4] = 1.0
    averages = ops.convert_to_numpy(window_average(ops.convert_to_tensor(maps), (1, 4)))
    # Cell 4 lies in the windows -1..+2 of the cells 2, 3, 4 and 5.
    np.testing.assert_array_equal(np.flatnonzero(averages), [2, 3, 4, 5])


def test_window_over_the_whole_map_and_more_is_the_mean_at_every_cell():
    maps = np.random.default_rng(2).normal(size=(3, 4, 5, 2)).astype("float32")
    averages = window_average(ops.convert_to_tensor(maps), (31, 31))
    mean = np.broadcast_to(maps.mean(axis=(1, 2), keepdims=True), maps.shape)
    np.testing.assert_allclose(ops.convert_to_numpy(averages), mean, atol=1e-6)


def test_gradient_is_the_transpose():
    generator = np.random.default_rng(3)
    maps, cotangent, tangent = generator.normal(size=(3, 1, 5, 6, 2)).astype("float32")
    (gradient,) = gradients(
        lambda x: ops.sum(window_average(x, (3, 4)) * ops.convert_to_tensor(cotangent)),
        maps,
    )
    # <A t, g> = <t, A^T g>
    np.testing.assert_allclose(
        np.sum(reference(tangent, (3, 4)) * cotangent),
        np.sum(tangent * gradient),
        rtol=1e-4,
    )


def test_half_precision_keeps_the_dtype():
    maps = ops.ones((1, 4, 4, 2), dtype="bfloat16")
    assert keras.backend.standardize_dtype(window_average(maps).dtype) == "bfloat16"


@pytest.mark.parametrize("window", [0, (2, 0), (1, 2, 3), 1.5, "half"])
def test_refuses_windows_that_are_none(window):
    with pytest.raises(ValueError, match="window"):
        window_average(ops.zeros((1, 4, 4, 1)), window)


def test_refuses_inputs_that_are_no_maps():
    with pytest.raises(ValueError, match="batch, height, width, channels"):
        window_average(ops.zeros((4, 4, 1)))
