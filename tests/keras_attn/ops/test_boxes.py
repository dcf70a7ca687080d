import numpy as np
import pytest

from keras_attn.ops.boxes import iou
from tests.harness import to_numpy
from tests.reference import patches as reference


def random_boxes(generator, shape):
    corners = generator.integers(0, 9, (*shape, 2))
    return np.concatenate(
        [corners, corners + generator.integers(1, 7, (*shape, 2))], axis=-1
    ).astype("int32")


@pytest.mark.parametrize("batch", [(), (3,)])
def test_equals_counting_pixels(batch):
    generator = np.random.default_rng(0)
    boxes, others = (random_boxes(generator, (*batch, n)) for n in (7, 5))
    others[..., 2, :] = -1
    found = to_numpy(iou(boxes, others))
    assert found.shape == (*batch, 7, 5)
    for index in np.ndindex(*found.shape):
        box, other = boxes[index[:-1]], others[(*index[:-2], index[-1])]
        assert found[index] == pytest.approx(reference.iou(box, other), abs=1e-6)
    assert 0.0 < found.mean() < 0.5


def test_the_reference_from_corners_equals_counting_pixels():
    generator = np.random.default_rng(1)
    for box, other in zip(*random_boxes(generator, (2, 50)), strict=True):
        box, other = box.tolist(), other.tolist()
        wanted = reference.iou(box, other)
        assert reference.overlap(box, other) == pytest.approx(wanted)


def test_direct_neighbours_of_the_smallest_branch():
    """Section 4.1 of the paper: 63 pixels, stride 8, threshold 0.8."""
    neighbours = np.array([[0, 8, 63, 71], [8, 8, 71, 71], [0, 0, 63, 63]])
    found = to_numpy(iou(np.array([[0, 0, 63, 63]]), neighbours))[0]
    np.testing.assert_allclose(found, [0.7747, 0.6157, 1.0], atol=1e-4)


def test_absent_boxes_overlap_with_nothing():
    absent = np.full((1, 4), -1)
    everywhere = np.array([[-5, -5, 5, 5], [-1, -1, -1, -1]])
    np.testing.assert_array_equal(to_numpy(iou(absent, everywhere)), 0.0)
