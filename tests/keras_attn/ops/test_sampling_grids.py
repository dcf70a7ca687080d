import numpy as np
import pytest
from keras import ops

from keras_attn.ops.sampling_grids import (
    affine_field,
    attention_field,
    saliency_field,
    structure_map,
    trilinear_attention,
)
from tests.harness import example, gradients, to_numpy
from tests.keras_attn.compiling import compiled
from tests.reference import deformations as reference

SIZES = [(5, 7), (1, 4)]


def evaluate(function, values, *settings):
    return to_numpy(compiled(function, len(settings))(values, *settings))


def places(function, values, *settings):
    """The places that a field reads, in float64 cells."""
    field = evaluate(function, values, *settings).astype(float)
    assert field.shape[3:] == (1, 2)
    return field[:, :, :, 0] + reference.cells(*field.shape[1:3])


def positive(*shape, seed=0):
    return np.random.default_rng(seed).gamma(0.5, size=shape).astype("float32")


# ---- affine ------------------------------------------------------------------------


def test_identity_parameters_move_nothing_at_all():
    field = affine_field(np.array([[1.0, 0, 0, 0, 1, 0]]), 14, 31)
    np.testing.assert_array_equal(to_numpy(field), np.zeros((1, 14, 31, 1, 2)))


@pytest.mark.parametrize("height, width", SIZES)
def test_affine_equals_the_map_of_the_corners(height, width):
    parameters = np.random.default_rng(1).normal(size=(2, 6)).astype("float32")
    found = places(affine_field, parameters, height, width)
    wanted = [reference.affine_places(row, height, width) for row in parameters]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_affine_equals_pytorch_also_with_a_single_row():
    torch = pytest.importorskip("torch")
    parameters = np.random.default_rng(2).normal(size=(2, 6)).astype("float32")
    for height, width in SIZES:
        grid = torch.nn.functional.affine_grid(
            torch.from_numpy(parameters).reshape(2, 2, 3),
            (2, 1, height, width),
            align_corners=True,
        ).numpy()
        wanted = (grid[..., ::-1] + 1) / 2 * [height - 1, width - 1]
        found = places(affine_field, parameters, height, width)
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_affine_shifts_by_half_the_map():
    field = evaluate(affine_field, np.array([[1.0, 0, 0, 0, 1, 1]]), 5, 7)
    np.testing.assert_array_equal(field[..., 0], 2.0)
    np.testing.assert_array_equal(field[..., 1], 0.0)


def test_affine_gradient_is_that_of_a_linear_map():
    weights = np.random.default_rng(3).normal(size=(2, 5, 4, 1, 2)).astype("float32")

    def value(parameters):
        return ops.sum(affine_field(parameters, 5, 4) * ops.convert_to_tensor(weights))

    start = np.zeros((2, 6), "float32")
    (gradient,) = gradients(compiled(value), start)
    for index in range(6):
        step = start + np.eye(6, dtype="float32")[index]
        difference = [
            np.sum(places(affine_field, p, 5, 4) * weights[:, :, :, 0], axis=(1, 2, 3))
            for p in (step, start)
        ]
        np.testing.assert_allclose(
            gradient[:, index], difference[0] - difference[1], rtol=1e-4
        )


# ---- saliency ----------------------------------------------------------------------


@pytest.mark.parametrize("height, width", [(14, 14), (31, 31), (7, 20)])
def test_uniform_saliency_is_the_identity(height, width):
    uniform = np.full((1, height, width), 1 / (height * width), "float32")
    field = evaluate(saliency_field, uniform)[0, :, :, 0]
    # As coordinates in 0..1, the published ones.
    largest = np.abs(field / np.maximum([height - 1, width - 1], 1)).max()
    assert largest < 5e-8


@pytest.mark.parametrize(
    "height, width, fwhm, padding",
    [(5, 7, None, None), (5, 7, (1.5, 4.0), (1, 6)), (1, 4, 2.5, 3)],
)
def test_saliency_equals_the_formula(height, width, fwhm, padding):
    saliency = positive(2, height, width)
    saliency /= saliency.sum(axis=(1, 2), keepdims=True)
    widths = (height * 13 / 31, width * 13 / 31)
    if fwhm is not None:
        widths = np.broadcast_to(fwhm, 2)
    border = (height - 1, width - 1)
    if padding is not None:
        border = np.broadcast_to(padding, 2)
    wanted = [reference.saliency_places(image, widths, border) for image in saliency]
    found = places(saliency_field, saliency, fwhm, padding)
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_default_gaussian_is_the_published_one_at_31_and_27_cells_wide_at_14():
    saliency = positive(1, 31, 31)
    saliency /= saliency.sum()
    np.testing.assert_allclose(
        places(saliency_field, saliency),
        places(saliency_field, saliency, 13.0, 30),
        atol=1e-5,
    )
    smaller = saliency[:, :14, :14] / saliency[:, :14, :14].sum()
    np.testing.assert_allclose(
        places(saliency_field, smaller),
        places(saliency_field, smaller, 13 * 14 / 31, 13),
        atol=1e-5,
    )


def test_every_cell_is_drawn_towards_a_salient_one():
    saliency = np.full((1, 9, 9), 1e-3, "float32")
    saliency[0, 4, 6] = 1.0
    read = places(saliency_field, saliency)[0]
    before = np.linalg.norm(reference.cells(9, 9) - [4, 6], axis=-1)
    after = np.linalg.norm(read - [4, 6], axis=-1)
    assert np.all(after[before > 0] < before[before > 0])
    np.testing.assert_allclose(read[4, 6], [4, 6], atol=0.05)


def test_cells_without_salient_ones_in_reach_stay():
    saliency = np.zeros((1, 9, 9), "float32")
    saliency[0, 0, 0] = 1.0
    field = evaluate(saliency_field, saliency, 1.0, 2)
    np.testing.assert_array_equal(field[0, 4:, 4:], 0.0)
    (gradient,) = gradients(
        compiled(lambda x: ops.sum(saliency_field(x, fwhm=1.0, padding=2))), saliency
    )
    assert np.all(np.isfinite(gradient))


def test_saliency_gradient_against_differences():
    saliency = positive(1, 5, 4, seed=4) + 0.2
    weights = np.random.default_rng(5).normal(size=(1, 5, 4, 2))
    (gradient,) = gradients(
        compiled(
            lambda x: ops.sum(
                saliency_field(x)[:, :, :, 0]
                * ops.convert_to_tensor(weights.astype("float32"))
            )
        ),
        saliency,
    )
    wide, border = (5 * 13 / 31, 4 * 13 / 31), (4, 3)
    for index in np.ndindex(1, 5, 4):
        sides = []
        for step in (1e-4, -1e-4):
            moved = saliency.astype(float)
            moved[index] += step
            sides.append(reference.saliency_places(moved[0], wide, border))
        slope = np.sum(weights[0] * (sides[0] - sides[1])) / 2e-4
        np.testing.assert_allclose(gradient[index], slope, atol=2e-3)


@pytest.mark.parametrize("fwhm", [0, -1.0, (1, 2, 3), "wide", True, float("inf")])
def test_refuses_widths_that_are_none(fwhm):
    with pytest.raises(ValueError, match="Expected `fwhm`.*Received: fwhm="):
        saliency_field(np.ones((1, 3, 3)), fwhm=fwhm)


@pytest.mark.parametrize("padding", [0, 1.5, (1, 2, 3)])
def test_refuses_paddings_that_are_none(padding):
    with pytest.raises(ValueError, match="Expected `padding`.*Received: padding="):
        saliency_field(np.ones((1, 3, 3)), padding=padding)


# ---- attention ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "height, width, value", [(14, 14, 3.7), (14, 14, 0.0), (5, 7, 1.0)]
)
def test_uniform_attention_gives_the_published_coordinates(height, width, value):
    attention = np.full((1, height, width), value, "float32")
    read = places(attention_field, attention)[0]
    for axis, size in enumerate((height, width)):
        normalized = 2 * read[..., axis] / (size - 1) - 1
        wanted = -1 + 2 * reference.cells(height, width)[..., axis] / size
        np.testing.assert_allclose(normalized, wanted, atol=1e-6)


@pytest.mark.parametrize("height, width", SIZES)
@pytest.mark.parametrize("exponent", [1, 6])
def test_attention_equals_the_published_sampler(height, width, exponent):
    # Of a high power one cell dominates, so that the first round cuts it off at 4.
    attention = positive(3, height, width, seed=6) ** exponent
    wanted = [reference.attention_places(image) for image in attention]
    found = places(attention_field, attention)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    limits = [height - 1, width - 1]
    assert np.all(found >= 0) and np.all(found <= limits)


def test_attended_rows_get_more_room():
    attention = np.ones((1, 14, 14), "float32")
    attention[0, 6, 9] = 8.0
    read = places(attention_field, attention)[0]
    for gaps, peak in ((np.diff(read[:, 0, 0]), 6), (np.diff(read[0, :, 1]), 9)):
        # Small steps towards the attended row or column, large ones elsewhere.
        assert np.all(gaps >= 0) and gaps.min() < 0.3 and gaps[[0, -1]].min() > 1.2
        nearest = np.cumsum(np.append(0, gaps))[np.argmin(gaps)]
        assert abs(nearest - peak) <= 1


def test_the_flatter_axis_limits_the_other():
    # As published: a peak of the rows is cut off at the largest density of columns.
    attention = np.ones((1, 14, 14), "float32")
    attention[0, 6] = 8.0
    uniform = evaluate(attention_field, np.ones_like(attention))
    field = evaluate(attention_field, attention)
    np.testing.assert_allclose(field, uniform, atol=1e-4)


def test_attention_that_is_zero_in_places_stays_finite():
    attention = np.zeros((2, 6, 7), "float32")
    attention[0, 3, 5] = 1e-20
    attention[1, 0, 0] = -2.0
    assert np.all(np.isfinite(evaluate(attention_field, attention)))


def test_trilinear_attention_equals_the_numpy_version():
    features = np.maximum(to_numpy(example((2, 5, 3, 7))), 0)
    for scale in (7.0, 2.0):
        wanted = [reference.trilinear_attention(image, scale) for image in features]
        maps = evaluate(trilinear_attention, features, scale)
        np.testing.assert_allclose(maps, wanted, atol=1e-5)
        total = evaluate(structure_map, features, scale)
        np.testing.assert_allclose(total, np.sum(wanted, axis=-1), rtol=1e-5)


# ---- errors ------------------------------------------------------------------------


def test_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"\(batch, 6\).*Received.*\(1, 2, 3\)"):
        affine_field(np.ones((1, 2, 3)), 4, 4)
    for function in (saliency_field, attention_field):
        with pytest.raises(ValueError, match="height, width.*Received"):
            function(np.ones((1, 4, 4, 1)))
    for function in (trilinear_attention, structure_map):
        with pytest.raises(ValueError, match="channels.*Received"):
            function(np.ones((4, 4, 1)))
