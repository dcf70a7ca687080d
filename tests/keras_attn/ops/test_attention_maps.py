import numpy as np
import pytest

from keras_attn.ops import aggregate_heads, normalize_map
from tests.harness import gradients, to_numpy

SHAPE = (2, 3, 5, 4)


@pytest.fixture(scope="module")
def maps():
    return np.random.default_rng(0).uniform(0.1, 0.2, SHAPE).astype("float32")


@pytest.mark.parametrize("how", ["mean", "sum", "max", "min"])
def test_aggregates_heads(maps, how):
    found = to_numpy(aggregate_heads(maps, how))
    wanted = getattr(maps, how)(axis=-1, keepdims=True)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_minmax_of_every_image_and_channel_alone(maps):
    found = to_numpy(normalize_map(maps))
    one = maps[1, :, :, 2]
    wanted = (one - one.min()) / (one.max() - one.min())
    np.testing.assert_allclose(found[1, :, :, 2], wanted, atol=1e-6)
    assert found.min() == 0.0 and found.max() == 1.0
    tiny = to_numpy(normalize_map(1e-3 + 1e-5 * maps))
    np.testing.assert_allclose(tiny, found, atol=1e-2)


def test_constant_maps_become_zero_with_finite_gradients():
    constant = np.full(SHAPE, 0.25, "float32")
    assert not to_numpy(normalize_map(constant)).any()

    def loss(x):
        return normalize_map(x)[0, 0, 0, 0]

    assert np.isfinite(gradients(loss, constant)[0]).all()


def test_scale_makes_uniform_attention_one():
    uniform = np.full(SHAPE, 1 / 15, "float32")
    found = to_numpy(normalize_map(uniform, "scale"))
    np.testing.assert_allclose(found, 1.0, atol=1e-6)


def test_refuses_unknown_names(maps):
    for function in (aggregate_heads, normalize_map):
        with pytest.raises(ValueError, match="Expected `how`.*'median'"):
            function(maps, "median")
