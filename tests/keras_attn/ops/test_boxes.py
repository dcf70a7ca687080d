import keras
import numpy as np
import pytest
import scipy.ndimage

from keras_attn.ops.boxes import heat_map_box, iou
from tests.harness import to_numpy
from tests.reference import localization
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


def test_equals_the_iou_of_boxes_whose_ends_are_inside():
    generator = np.random.default_rng(2)
    first, second = random_boxes(generator, (2, 40))
    found = to_numpy(iou(first[:, None] + [0, 0, 1, 1], second[:, None] + [0, 0, 1, 1]))
    wanted = [
        localization.inclusive_iou(*each) for each in zip(first, second, strict=True)
    ]
    np.testing.assert_allclose(found[:, 0, 0], wanted, atol=1e-6)


def smooth_maps(generator, count, size=(17, 23)):
    noise = generator.standard_normal((count, *size))
    return scipy.ndimage.gaussian_filter(noise, (0, 1, 1)).astype("float32")


@pytest.mark.parametrize("threshold", [0.0, 0.15, 0.7])
def test_largest_region_equals_that_of_scipy(threshold):
    maps = smooth_maps(np.random.default_rng(3), 8)
    found = to_numpy(heat_map_box(maps, threshold))
    assert found.dtype == "int32"
    wanted = [localization.heat_map_box(each, threshold) for each in maps]
    np.testing.assert_array_equal(found, wanted)


def test_regions_as_long_as_the_map():
    """A comb, a spiral and single pixels: where labels have far to go."""
    comb = np.zeros((17, 23))
    comb[0], comb[:, ::2] = 1, 1
    spiral = np.zeros((17, 23))
    for turn in range(0, 8, 2):
        spiral[turn, turn : 23 - turn] = 1
        spiral[turn : 17 - turn, 22 - turn] = 1
        spiral[16 - turn, turn : 23 - turn] = 1
        spiral[turn + 2 : 17 - turn, turn] = 1
        spiral[turn + 2, turn : turn + 2] = 1
    diagonal = np.zeros((17, 23))
    diagonal[range(17), range(17)], diagonal[2:6, 12:15] = 1, 1
    maps = np.stack([comb, spiral, diagonal, comb[::-1]])
    maps = np.concatenate([maps, maps[:, ::-1, ::-1]]).astype("float32")
    found = to_numpy(heat_map_box(maps)).tolist()
    assert [found[i] for i in (0, 1, 3, 4, 5, 7)] == [[0, 0, 17, 23]] * 6
    # Connected by corners, seventeen pixels are more than twelve.
    assert [found[2], found[6]] == [[0, 0, 17, 17], [0, 6, 17, 23]]


def test_the_first_of_equal_regions_and_no_region():
    maps = np.zeros((2, 4, 17, 23), "float32")
    maps[0, 0, 1:3, 4:6] = maps[0, 0, 3:5, 0:2] = 2.0
    maps[0, 1] = -1.0
    maps[1, 0] = 0.4
    found = to_numpy(heat_map_box(maps))
    assert found[0].tolist() == [[1, 4, 3, 6]] + 3 * [[-1] * 4]
    assert found[1].tolist() == [[0, 0, 17, 23]] + 3 * [[-1] * 4]
    single = to_numpy(heat_map_box(np.array([[0.0, 2.0, 1.0]]), 0.5))
    assert single.tolist() == [0, 1, 1, 2]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a TF graph")
def test_box_in_a_graph_of_any_batch_by_xla():
    import tensorflow as tf

    signature = [tf.TensorSpec((None, 17, 23), tf.float32)]
    graph = tf.function(heat_map_box, input_signature=signature, jit_compile=True)
    for count in (1, 5):
        maps = smooth_maps(np.random.default_rng(count), count)
        np.testing.assert_array_equal(graph(maps), heat_map_box(maps))


@pytest.mark.parametrize(
    "maps, threshold, message",
    [
        (np.zeros((2, 3, 3)), 1.0, r"`threshold`.*\[0, 1\).*threshold=1.0"),
        (np.zeros((2, 3, 3)), -0.1, "threshold=-0.1"),
        (np.zeros((2, 3, 3)), float("nan"), "threshold=nan"),
        (np.zeros(3), 0.1, r"\(\.\.\., height, width\).*\(3,\)"),
    ],
)
def test_box_refuses_wrong_arguments(maps, threshold, message):
    with pytest.raises(ValueError, match=f"Expected.*{message}"):
        heat_map_box(maps, threshold)
