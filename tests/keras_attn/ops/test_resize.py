import keras
import numpy as np
import pytest
from keras import ops

from keras_attn.ops.resize import resize_bicubic, resize_bilinear, upsample
from tests.harness import to_numpy
from tests.keras_attn.compiling import compiled


def resized(images, size):
    return ops.convert_to_numpy(resize_bicubic(ops.convert_to_tensor(images), size))


@pytest.mark.parametrize("size", [(5, 7), (13, 11), (31, 29), (1, 3)])
def test_equals_pytorch(size):
    torch = pytest.importorskip("torch")
    images = np.random.default_rng(0).uniform(0, 255, (2, 13, 17, 3)).astype("float32")
    wanted = torch.nn.functional.interpolate(
        torch.tensor(images.transpose(0, 3, 1, 2)),
        size=size,
        mode="bicubic",
        align_corners=True,
    )
    wanted = wanted.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(resized(images, size), wanted, rtol=1e-4, atol=1e-3)


def test_keeps_a_plane_inside_and_corners_exactly():
    rows, columns = np.mgrid[:9, :13].astype("float32")
    plane = (3 * rows + 5 * columns)[None, :, :, None]
    larger = resized(plane, (17, 25))[0, :, :, 0]
    np.testing.assert_allclose(larger[::16, ::24], plane[0, ::8, ::12, 0], atol=1e-4)
    fine_rows, fine_columns = np.mgrid[:17, :25] / 2
    wanted = 3 * fine_rows + 5 * fine_columns
    inside = (slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(larger[inside], wanted[inside], atol=1e-4)


def test_the_same_size_changes_nothing_and_integers_become_float32():
    images = np.random.default_rng(1).integers(0, 256, (2, 5, 7, 3), dtype="uint8")
    result = resized(images, (5, 7))
    assert result.dtype == "float32"
    np.testing.assert_allclose(result, images, atol=1e-4)


# ---- upsampling ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def maps():
    return np.random.default_rng(0).uniform(0.1, 0.2, (2, 3, 5, 4)).astype("float32")


def test_upsampling_repeats_cells(maps):
    wanted = np.kron(maps, np.ones((1, 8, 8, 1)))
    np.testing.assert_array_equal(to_numpy(upsample(maps, 8)), wanted)


@pytest.mark.parametrize("factor", [(2, 3), (5, 1)])
def test_bilinear_upsampling_as_in_torch(maps, factor):
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


def interpolated(values, size, axis):
    """Linear between the centres of cells, which lie at whole numbers."""
    cells = values.shape[axis]
    places = (np.arange(size) + 0.5) * cells / size - 0.5
    return np.apply_along_axis(
        lambda line: np.interp(places, np.arange(cells), line), axis, values
    )


@pytest.mark.parametrize("size", [(3, 5), (7, 11), (3, 13)])
def test_bilinear_resize_interpolates_between_centres(maps, size):
    wanted = interpolated(interpolated(maps, size[0], 1), size[1], 2)
    found = compiled(lambda x: resize_bilinear(x, size))(maps)
    np.testing.assert_allclose(to_numpy(found), wanted, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_bilinear_upsampling_keeps_floats_and_makes_them_of_integers(dtype):
    ramp = np.arange(2, dtype=dtype).reshape((1, 1, 2, 1))
    found = upsample(ramp, (1, 2), "bilinear")
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    found = to_numpy(upsample(ramp.astype("int32"), (1, 2), "bilinear"))
    np.testing.assert_array_equal(found[0, 0, :, 0], [0.0, 0.25, 0.75, 1.0])


def test_upsampling_refuses_unknown_names(maps):
    with pytest.raises(ValueError, match="Expected `how`.*'cubic'"):
        upsample(maps, 2, "cubic")
    with pytest.raises(ValueError, match="Expected `factor`"):
        upsample(maps, 0)
