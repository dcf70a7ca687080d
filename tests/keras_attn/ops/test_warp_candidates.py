import numpy as np
import pytest

from keras_attn.ops.warp_candidates import expected_displacement
from tests.harness import check_gradients, to_numpy
from tests.reference import volumetric_transformer as reference

WINDOW, RADIUS = 11, 5
HEIGHT, WIDTH = 17, 13


def fields_of(responses, residuals=None, window=WINDOW, temperature=10.0):
    responses = np.asarray(responses, "float32")
    if residuals is None:
        residuals = np.zeros((*responses.shape, window**2), "float32")
    return to_numpy(expected_displacement(responses, residuals, window, temperature))


def inward(length, radius=RADIUS):
    """Mean offset of the candidates that are on the map, for every row."""
    places = np.arange(length)
    first = np.maximum(-radius, -places)
    last = np.minimum(radius, length - 1 - places)
    return (first + last) / 2


@pytest.mark.parametrize("window", [3, 5])
def test_equals_the_slow_version(window):
    random = np.random.default_rng(window)
    responses = random.normal(0, 4, (3, 7, 5))
    residuals = random.normal(0, 4, (3, 7, 5, window**2))
    wanted = reference.expected_displacement(responses, residuals, window, 2.5)
    found = fields_of(responses, residuals, window, 2.5)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_equal_responses_pull_inwards_near_the_border_only():
    fields = fields_of(np.full((1, HEIGHT, WIDTH), 3.0))[0]
    interior = fields[RADIUS:-RADIUS, RADIUS:-RADIUS]
    np.testing.assert_allclose(interior, 0.0, atol=1e-6)
    np.testing.assert_allclose(fields[0, 0], [2.5, 2.5], atol=1e-6)
    np.testing.assert_allclose(fields[-1, -1], [-2.5, -2.5], atol=1e-6)
    for distance in range(RADIUS):
        pull = [(5 - distance) / 2, 0.0]
        np.testing.assert_allclose(fields[distance, WIDTH // 2], pull, atol=1e-6)
        np.testing.assert_allclose(fields[HEIGHT // 2, distance], pull[::-1], atol=1e-6)


def test_a_strong_peak_attracts_its_window_exactly():
    responses = np.zeros((1, HEIGHT, WIDTH))
    peak = np.array([8, 5])
    responses[0, 8, 5] = 1e4
    fields = fields_of(responses)[0]
    cells = np.stack(np.mgrid[:HEIGHT, :WIDTH], axis=-1)
    near = np.abs(cells - peak).max(axis=-1) <= RADIUS
    assert near.sum() == WINDOW**2
    np.testing.assert_array_equal((cells + fields)[near], np.tile(peak, (121, 1)))
    uniform = np.stack(np.meshgrid(inward(HEIGHT), inward(WIDTH), indexing="ij"), -1)
    np.testing.assert_allclose(fields[~near], uniform[~near], atol=5e-6)


def test_a_high_temperature_weighs_all_candidates_alike():
    random = np.random.default_rng(0)
    fields = fields_of(random.normal(size=(2, HEIGHT, WIDTH)), temperature=1e8)
    uniform = np.stack(np.meshgrid(inward(HEIGHT), inward(WIDTH), indexing="ij"), -1)
    np.testing.assert_allclose(fields, [uniform, uniform], atol=1e-5)


def test_a_low_temperature_takes_the_best_candidate():
    random = np.random.default_rng(1)
    responses = random.permutation(HEIGHT * WIDTH).reshape((1, HEIGHT, WIDTH))
    fields = fields_of(responses, temperature=1e-3)[0]
    for row, column in np.ndindex(HEIGHT, WIDTH):
        top, left = max(row - RADIUS, 0), max(column - RADIUS, 0)
        seen = responses[0, top : row + RADIUS + 1, left : column + RADIUS + 1]
        best = np.unravel_index(np.argmax(seen), seen.shape)
        wanted = np.add(best, (top, left)) - (row, column)
        np.testing.assert_array_equal(fields[row, column], wanted)


def test_candidates_are_numbered_row_by_row():
    residuals = np.zeros((1, 4, 5, 9), "float32")
    residuals[..., 5] = 1e4  # in the middle row, to the right
    fields = fields_of(np.zeros((1, 4, 5)), residuals, window=3)
    np.testing.assert_array_equal(fields[0, :, :-1], np.tile([0.0, 1.0], (4, 4, 1)))


def test_candidates_outside_never_win():
    """However strongly the estimator asks for them."""
    residuals = np.zeros((1, 4, 5, 9), "float32")
    residuals[..., :3] = 1e5  # the row above
    fields = fields_of(np.zeros((1, 4, 5)), residuals, window=3)
    cells = np.arange(4)[:, None] + fields[0, ..., 0]
    assert cells.min() >= 0
    np.testing.assert_allclose(fields[0, 0, 2], [0.5, 0.0], atol=1e-6)


def test_gradients_equal_finite_differences():
    check_gradients(
        lambda *inputs: expected_displacement(*inputs, 3, 1.5), (2, 4, 5), (2, 4, 5, 9)
    )
