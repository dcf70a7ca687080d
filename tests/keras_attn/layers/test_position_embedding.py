import keras
import numpy as np
import pytest

from keras_attn.layers import PositionEmbedding
from tests.harness import check_layer, example, randomize, run, to_numpy


def test_keeps_the_promises_of_a_layer():
    check_layer(
        PositionEmbedding,
        {"grid": (2, 5), "offset": 0.1},
        (2, 3, 5, 7),
        expected_num_trainable_weights=2,
    )


def test_adds_the_learned_positions_row_by_row():
    layer = PositionEmbedding((2, 3))
    patches = example((2, 2, 3, 4))
    layer(patches)
    randomize(layer)
    token, positions = (to_numpy(weight) for weight in layer.weights)
    found = run(layer, patches)
    np.testing.assert_allclose(found[:, 0], (token + positions[:1]).repeat(2, 0))
    wanted = to_numpy(patches)[:, 1, 2] + positions[1 + 1 * 3 + 2]
    np.testing.assert_allclose(found[:, -1], wanted, atol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 0.1])
@pytest.mark.parametrize("size", [(14, 56), (12, 12)])
def test_interpolates_as_torch(size, offset):
    """14 x 56 patches are 112 x 448 pixels: as many as the 28 x 28 learned ones."""
    torch = pytest.importorskip("torch")
    layer = PositionEmbedding(28, offset)
    layer.build((None, 28, 28, 3))
    randomize(layer)
    positions = torch.tensor(to_numpy(layer.positions)[1:])
    positions = positions.reshape(1, 28, 28, 3).permute(0, 3, 1, 2)
    how = {"mode": "bicubic", "align_corners": False}
    if offset:
        how["scale_factor"] = tuple((side + offset) / 28 for side in size)
    else:
        how["size"] = size
    wanted = torch.nn.functional.interpolate(positions, **how)[0]
    assert wanted.shape[1:] == size
    wanted = wanted.permute(1, 2, 0).reshape(-1, 3).numpy()
    found = to_numpy(layer.positions_at(*size))
    np.testing.assert_array_equal(found[0], to_numpy(layer.positions)[0])
    np.testing.assert_allclose(found[1:], wanted, atol=1e-5)


def test_the_offset_matters_and_leaves_the_learned_size_alone():
    layer = PositionEmbedding((4, 6), 0.1)
    layer.build((None, 4, 6, 2))
    plain = PositionEmbedding((4, 6))
    plain.build((None, 4, 6, 2))
    plain.set_weights(layer.get_weights())
    learned = to_numpy(layer.positions)
    np.testing.assert_array_equal(to_numpy(layer.positions_at(4, 6)), learned)
    moved, unmoved = (to_numpy(one.positions_at(6, 4)) for one in (layer, plain))
    assert np.abs(moved - unmoved).max() > 1e-4


def test_refuses_an_unknown_size_where_it_matters():
    layer = PositionEmbedding(3)
    assert layer(keras.Input((None, 3, 5))).shape == (None, None, 5)
    with pytest.raises(ValueError, match="known number of rows and columns"):
        layer.call(keras.Input((None, 3, 5)))


@pytest.mark.parametrize("grid", [0, (3, 0), "3", (1, 2, 3)])
def test_refuses_a_bad_grid(grid):
    with pytest.raises(ValueError, match="Expected `grid`"):
        PositionEmbedding(grid)
