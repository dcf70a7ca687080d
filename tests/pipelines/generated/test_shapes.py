import numpy as np
import pytest

from keras_attn.pipelines.generated.shapes import (
    PART_NAMES,
    PARTS,
    Canvas,
    Capsule,
    Ellipse,
    Part,
    Polygon,
    Pose,
    Ring,
    class_table,
)

RED = np.array([[1, 0, 0], [1, 0, 0]], "float32")
AREAS = [
    (Ellipse((0.1, -0.05), (0.3, 0.3)), np.pi * 0.09),
    (Ellipse((0.1, 0.05), (0.4, 0.2)), np.pi * 0.08),
    (Ring((0.0, 0.1), 0.25, 0.1), np.pi * (0.3**2 - 0.2**2)),
    (Capsule((-0.2, 0.0), (0.2, 0.1), 0.1), 0.2 * 0.17**0.5 + np.pi * 0.01),
    (Polygon(((-0.3, -0.3), (0.3, -0.3), (-0.3, 0.3))), 0.18),
    (Polygon(((-0.3, 0.3), (0.3, -0.3), (-0.3, -0.3))), 0.18),
]


def painted(part, pose, size=211):
    canvas = Canvas(np.zeros((size, size, 3), "float32"))
    canvas.paint(part, pose, RED, owner=3)
    return canvas


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("shape,area", AREAS)
def test_area_of_every_shape_after_a_similarity(shape, area, mirrored):
    pose = Pose.turned(33, 0.7, (0.5, 0.45), mirrored)
    canvas = painted(Part("shape", (shape,)), pose)
    assert np.mean(canvas.owner == 3) == pytest.approx(0.49 * area, rel=0.03)
    assert set(np.unique(canvas.owner)) == {0, 3}


def test_position_of_a_disc():
    disc = Part("disc", (Ellipse((0.5, 0.0), (0.1, 0.1)),))
    # A quarter turn sends x to y: the disc goes below the middle, not beside it.
    rows, columns = np.nonzero(painted(disc, Pose.turned(90, 0.4, (0.5, 0.5))).owner)
    assert np.mean(rows + 0.5) / 211 == pytest.approx(0.7, abs=0.003)
    assert np.mean(columns + 0.5) / 211 == pytest.approx(0.5, abs=0.003)
    mirrored = Pose.turned(0, 0.4, (0.5, 0.5), mirrored=True)
    rows, columns = np.nonzero(painted(disc, mirrored).owner)
    assert np.mean(columns + 0.5) / 211 == pytest.approx(0.3, abs=0.003)


def test_poses_compose():
    inner = Pose.turned(20, 0.5, (0.1, 0.2), mirrored=True)
    outer = Pose.turned(-70, 3.0, (1.0, -0.4))
    points = np.random.default_rng(0).normal(size=(5, 2))
    np.testing.assert_allclose(inner.after(outer)(points), outer(inner(points)))
    assert inner.after(outer).scale == pytest.approx(1.5)


@pytest.mark.parametrize("name", PART_NAMES)
def test_outlines_bound_the_parts(name):
    grid = np.linspace(-1, 1, 401, dtype="float32")
    u, v = np.broadcast_arrays(grid, grid[:, None])
    for part in PARTS[name]:
        inside = part.distance(u, v) < 0
        found = [u[inside].min(), v[inside].min(), u[inside].max(), v[inside].max()]
        outline = part.outline
        expected = [*outline.min(axis=0), *outline.max(axis=0)]
        np.testing.assert_allclose(found, expected, atol=0.012, err_msg=part.name)


@pytest.mark.parametrize("name", PART_NAMES)
def test_variants_differ_in_shape(name):
    masks = [
        painted(part, Pose.turned(0, 0.8, (0.4, 0.5))).owner > 0 for part in PARTS[name]
    ]
    for i, left in enumerate(masks):
        for right in masks[:i]:
            assert (left & right).sum() < 0.75 * (left | right).sum()


def test_paint_clips_to_the_image():
    disc = Part("disc", (Ellipse((0.0, 0.0), (0.25, 0.25)),))
    corner = painted(disc, Pose.turned(0, 1.0, (0.0, 0.0)))
    assert np.mean(corner.owner == 3) == pytest.approx(np.pi / 64, rel=0.03)
    outside = painted(disc, Pose.turned(0, 1.0, (1.4, 0.5)))
    assert not outside.owner.any() and not outside.image.any()


def test_a_later_shape_hides_an_earlier_one():
    disc = Part("disc", (Ellipse((0.0, 0.0), (0.25, 0.25)),))
    pose = Pose.turned(0, 1.0, (0.5, 0.5))
    canvas = painted(disc, pose)
    canvas.paint(disc, pose, RED, owner=0)
    assert not canvas.owner.any()


def test_fewer_classes_are_the_beginning_of_more():
    full = class_table(64)
    assert len(np.unique(full, axis=0)) == 64
    assert ((full[1:] != full[:-1]).sum(axis=1) == 1).all()
    for number in (2, 10, 33):
        np.testing.assert_array_equal(class_table(number), full[:number])
    assert (full.max(axis=0) == 3).all()
