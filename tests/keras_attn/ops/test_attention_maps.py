import numpy as np
import pytest

from keras_attn.ops import aggregate_heads, normalize_map, upsample
from tests.harness import gradients, to_numpy
from tests.keras_attn.compiling import compiled

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


def test_nearest_repeats_cells(maps):
    wanted = np.kron(maps, np.ones((1, 8, 8, 1)))
    np.testing.assert_array_equal(to_numpy(upsample(maps, 8)), wanted)


@pytest.mark.parametrize("factor", [(2, 3), (5, 1)])
def test_bilinear_as_in_torch(maps, factor):
    torch = pytest.importorskip("torch")
    found = to_numpy(compiled(lambda x: upsample(x, factor, "bilinear"))(maps))
    wanted = torch.nn.functional.interpolate(
        torch.tensor(maps).permute(0, 3, 1, 2),
        scale_factor=tuple(map(float, factor)),
        mode="bilinear",
    )
    np.testing.assert_allclose(found, wanted.permute(0, 2, 3, 1).numpy(), atol=1e-6)


def test_bilinear_continues_a_ramp_and_the_border():
    ramp = np.arange(4.0, dtype="float32").reshape((1, 1, 4, 1))
    found = to_numpy(upsample(ramp, (2, 2), "bilinear"))[0, :, :, 0]
    wanted = [0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]
    np.testing.assert_allclose(found, [wanted, wanted], atol=1e-6)


def test_refuses_unknown_names(maps):
    for function in (aggregate_heads, normalize_map):
        with pytest.raises(ValueError, match="Expected `how`.*'median'"):
            function(maps, "median")
    with pytest.raises(ValueError, match="Expected `how`.*'cubic'"):
        upsample(maps, 2, "cubic")
    with pytest.raises(ValueError, match="Expected `factor`"):
        upsample(maps, 0)
