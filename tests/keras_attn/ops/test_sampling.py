import numpy as np
import pytest
from keras import ops

from keras_attn.ops.sampling import bilinear_sample, cell_grid, limit_to_map, warp
from tests.harness import check_gradients, gradients, to_numpy
from tests.reference import volumetric_transformer as reference

SHAPE, GROUPS, PLACES = (2, 5, 7, 6), 3, (3, 4)
PADDINGS = pytest.mark.parametrize("padding", ["border", "zeros"])


@pytest.fixture
def features():
    return np.random.default_rng(1).normal(size=SHAPE).astype("float32")


@pytest.fixture
def coordinates():
    """On the map and up to three cells outside of it, and not near a cell's centre."""
    random = np.random.default_rng(2)
    shape = (SHAPE[0], *PLACES, GROUPS)
    whole = np.stack(
        [random.integers(-3, size + 2, shape) for size in SHAPE[1:3]], axis=-1
    )
    part = random.uniform(0.1, 0.9, (*shape, 2))
    return (whole + part).astype("float32")


def grid():
    return np.stack(np.mgrid[: SHAPE[1], : SHAPE[2]], axis=-1)[None, :, :, None]


def each_group(features, coordinates):
    depth = SHAPE[-1] // GROUPS
    for group in range(GROUPS):
        channels = slice(group * depth, (group + 1) * depth)
        yield channels, features[..., channels], coordinates[..., group, :]


# ---- values ------------------------------------------------------------------------


@PADDINGS
def test_equals_the_slow_version(features, coordinates, padding):
    wanted = reference.bilinear_sample(features, coordinates, padding)
    found = to_numpy(bilinear_sample(features, coordinates, padding))
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@PADDINGS
def test_equals_map_coordinates_of_scipy(features, coordinates, padding):
    ndimage = pytest.importorskip("scipy.ndimage")
    mode = {"border": "nearest", "zeros": "grid-constant"}[padding]
    found = to_numpy(bilinear_sample(features, coordinates, padding))
    for channels, maps, places in each_group(features, coordinates):
        for image, channel in np.ndindex(2, 2):
            wanted = ndimage.map_coordinates(
                maps[image, :, :, channel],
                np.moveaxis(places[image], -1, 0),
                order=1,
                mode=mode,
            )
            np.testing.assert_allclose(
                found[image, :, :, channels][..., channel], wanted, atol=1e-6
            )


@PADDINGS
def test_equals_grid_sample_of_torch(features, coordinates, padding):
    torch = pytest.importorskip("torch")
    found = to_numpy(bilinear_sample(features, coordinates, padding))
    for channels, maps, places in each_group(features, coordinates):
        last = np.subtract(SHAPE[1:3], 1)
        # In float64, as coordinates from -1 to 1 are coarser than cells in float32.
        relative = (2 * places.astype("float64") / last - 1)[..., ::-1]
        wanted = torch.nn.functional.grid_sample(
            torch.from_numpy(np.moveaxis(maps, -1, 1).astype("float64")),
            torch.from_numpy(relative.copy()),
            align_corners=True,
            padding_mode=padding,
        )
        np.testing.assert_allclose(
            found[..., channels], np.moveaxis(wanted.numpy(), 1, -1), atol=1e-6
        )


@PADDINGS
def test_zero_displacement_changes_nothing(features, padding):
    fields = np.zeros((*SHAPE[:3], GROUPS, 2))
    np.testing.assert_array_equal(to_numpy(warp(features, fields, padding)), features)


@PADDINGS
def test_whole_displacements_shift_each_group(features, padding):
    shifts = np.array([[1, -2], [0, 3], [-1, 0]])
    fields = np.broadcast_to(shifts, (*SHAPE[:3], GROUPS, 2))
    found = to_numpy(warp(features, fields, padding))
    mode = {"border": "edge", "zeros": "constant"}[padding]
    for (channels, maps, _), (dy, dx) in zip(
        each_group(features, fields), shifts, strict=True
    ):
        around = np.pad(maps, [(0, 0), (3, 3), (3, 3), (0, 0)], mode)
        wanted = around[:, 3 + dy :, 3 + dx :][:, : SHAPE[1], : SHAPE[2]]
        np.testing.assert_array_equal(found[..., channels], wanted)


def test_fields_are_displacements_of_the_cells(features):
    fields = np.random.default_rng(3).normal(size=(*SHAPE[:3], GROUPS, 2))
    wanted = reference.bilinear_sample(features, grid() + fields)
    np.testing.assert_allclose(to_numpy(warp(features, fields)), wanted, atol=2e-6)


def test_maps_of_one_row_or_column():
    row = np.arange(3.0, dtype="float32").reshape((1, 1, 3, 1))
    places = np.array([[[[[0.0, 1.5]], [[-4.0, 9.0]]]]])
    found = to_numpy(bilinear_sample(row, places))
    np.testing.assert_allclose(found[0, 0, :, 0], [1.5, 2.0])
    column = np.moveaxis(row, 1, 2)
    found = to_numpy(bilinear_sample(column, places[..., ::-1]))
    np.testing.assert_allclose(found[0, 0, :, 0], [1.5, 2.0])


def test_coordinates_of_large_maps_keep_their_precision():
    """Half types have no 299; the coordinates must not be rounded to them."""
    cells = np.zeros((1, 1, 301, 1), "float32")
    cells[0, 0, 299] = 1.0
    places = np.array([[[[[0.0, 298.5]], [[0.0, 299.0]], [[0.0, 300.0]]]]])
    found = bilinear_sample(ops.cast(cells, "bfloat16"), places)
    assert found.dtype == ops.cast(cells, "bfloat16").dtype
    np.testing.assert_array_equal(to_numpy(found)[0, 0, :, 0], [0.5, 1.0, 0.0])


def test_a_constant_map_stays_constant_in_half_precision(coordinates):
    constant = ops.full(SHAPE, 3.0, dtype="bfloat16")
    found = to_numpy(bilinear_sample(constant, coordinates))
    np.testing.assert_array_equal(found, 3.0)


def test_cells_are_listed_row_by_row():
    cells = to_numpy(cell_grid(2, 3))
    np.testing.assert_array_equal(cells, np.stack(np.mgrid[:2, :3], axis=-1))
    assert cells.dtype == np.float32


def test_limited_fields_end_on_the_map():
    fields = np.random.default_rng(4).normal(0, 4, (*SHAPE[:3], GROUPS, 2))
    found = to_numpy(limit_to_map(fields))
    wanted = np.clip(grid() + fields, 0, np.subtract(SHAPE[1:3], 1)) - grid()
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert np.abs(wanted - fields).max() > 1


# ---- gradients ---------------------------------------------------------------------


@PADDINGS
def test_gradients_equal_finite_differences(features, coordinates, padding):
    check_gradients(
        lambda *inputs: bilinear_sample(*inputs, padding), features, coordinates
    )


def test_each_feature_has_its_own_gradient(features, coordinates):
    """Row by row of the linear map, which sums could hide."""

    def objective(features):
        return ops.sum(ops.square(bilinear_sample(features, coordinates)))

    (found,) = gradients(objective, features)
    values = reference.bilinear_sample(features, coordinates)
    for index in [(0, 0, 0, 0), (1, 2, 3, 4), (0, 4, 6, 5), (1, 4, 0, 2)]:
        unit = np.zeros(SHAPE)
        unit[index] = 1.0
        wanted = (2 * values * reference.bilinear_sample(unit, coordinates)).sum()
        np.testing.assert_allclose(found[index], wanted, atol=1e-5)


def test_gradient_at_the_centres_of_cells(features):
    """Towards the next cell, from the one before in the last: nowhere lost."""
    fields = np.zeros((*SHAPE[:3], SHAPE[-1], 2), "float32")
    (found,) = gradients(lambda fields: ops.sum(warp(features, fields)), fields)
    down, right = np.diff(features, axis=1), np.diff(features, axis=2)
    down = np.concatenate([down, down[:, -1:]], axis=1)
    right = np.concatenate([right, right[:, :, -1:]], axis=2)
    np.testing.assert_allclose(found, np.stack([down, right], axis=-1), atol=1e-6)


def test_no_gradient_leads_back_from_outside(features):
    fields = np.full((*SHAPE[:3], 1, 2), -20.0, "float32")
    (found,) = gradients(lambda fields: ops.sum(warp(features, fields)), fields)
    np.testing.assert_array_equal(found, 0.0)


def test_limited_fields_pass_gradients_on_the_map():
    fields = np.zeros((1, 2, 3, 1, 2), "float32")
    fields[0, 0, 0, 0, 0] = -0.5
    fields[0, 1, 2, 0, 1] = 0.5
    (found,) = gradients(lambda fields: ops.sum(limit_to_map(fields)), fields)
    np.testing.assert_array_equal(found, (fields == 0).astype("float32"))


# ---- errors ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "features_shape, coordinates_shape, padding, message",
    [
        ((1, 2, 3), (1, 2, 3, 1, 2), "border", "Expected `features` of shape"),
        ((1, 2, 3, 4), (1, 2, 3, 2), "border", "Expected `coordinates` of shape"),
        ((1, 2, 3, 4), (1, 2, 3, 1, 3), "border", "Expected `coordinates` of shape"),
        ((1, 2, 3, 4), (1, 2, 3, 3, 2), "border", "groups=3, channels=4"),
        ((1, 2, 3, 4), (1, 2, 3, 2, 2), "mirror", "padding='mirror'"),
    ],
)
def test_refuses_what_does_not_fit(features_shape, coordinates_shape, padding, message):
    with pytest.raises(ValueError, match=message):
        bilinear_sample(np.zeros(features_shape), np.zeros(coordinates_shape), padding)
