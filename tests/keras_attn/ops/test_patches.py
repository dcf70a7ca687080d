import keras
import numpy as np
import pytest
from keras import ops, tree

from keras_attn.ops import patches
from keras_attn.ops.boxes import iou
from keras_attn.ops.patches import branch_decision, crop_patches, localize_patches
from tests.harness import gradients, to_numpy
from tests.reference import patches as reference

BACKEND = keras.backend.backend()


def localize(evidence, *arguments, **options):
    """NumPy outputs; compiled on JAX, where single operations take long."""

    def function(evidence):
        return localize_patches(evidence, *arguments, **options)

    if BACKEND == "jax":
        import jax

        function = jax.jit(function)
    return tree.map_structure(to_numpy, function(ops.convert_to_tensor(evidence)))


def random_maps(generator, count, shape):
    """Half of them rounded, so that many cells are equal."""
    maps = generator.standard_normal((count, *shape)).astype("float32")
    maps[::2] = np.round(maps[::2])
    return maps


def assert_same_patches(found, maps, wanted):
    """Wanted: for each map the accepted cells and boxes."""
    for index, (cells, boxes) in enumerate(wanted):
        count = len(boxes)
        np.testing.assert_array_equal(found["boxes"][index, :count], boxes)
        assert (found["boxes"][index, count:] == -1).all()
        scores = [maps[index][cell] for cell in cells]
        np.testing.assert_array_equal(found["scores"][index, :count], scores)
        assert (found["scores"][index, count:] == 0.0).all()
        np.testing.assert_array_equal(
            found["valid"][index], np.arange(len(found["valid"][index])) < count
        )


# ---- decisions ---------------------------------------------------------------


def softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


@pytest.mark.parametrize("branches", [1, 2, 3])
def test_decisions_equal_the_slow_version(branches):
    generator = np.random.default_rng(branches)
    logits = generator.standard_normal((600, branches, 4)).astype("float32")
    if branches == 3:
        logits[::3, 2] = logits[::3, 0]  # the same confidence for the same class
    label, branch = map(to_numpy, branch_decision(logits))
    assert label.dtype == branch.dtype == np.dtype("int32")
    wanted = [reference.decide(row) for row in softmax(logits.astype("float64"))]
    np.testing.assert_array_equal(np.stack([label, branch], axis=1), wanted)
    assert len(set(branch.tolist())) == branches


@pytest.mark.parametrize(
    "logits, wanted",
    [
        # Two unsure branches outvote a sure one; the surer of the two is followed.
        ([[0, 0.2, 0], [9, 0, 0], [0, 0.3, 0]], (1, 2)),
        # All disagree: the most confident.
        ([[1, 0, 0], [0, 3, 0], [0, 0, 2]], (1, 1)),
        # Equal confidence, together and apart: the smallest patches.
        ([[0, 2, 0], [2, 0, 0], [0, 0, 2]], (1, 0)),
        ([[5, 0, 0], [0, 0, 2], [0, 0, 2]], (2, 1)),
        # Both probabilities are 1 in float32, and yet the second is larger.
        ([[25, 0, 0], [0, 35, 0], [0, 0, 1]], (1, 1)),
        # Two pairs: the one with the most confident member.
        ([[1, 0, 0], [0, 2, 0], [3, 0, 0], [0, 1, 0]], (0, 2)),
        ([[1, 4, 2]], (1, 0)),
    ],
)
def test_decisions_by_hand(logits, wanted):
    label, branch = branch_decision(np.array([logits], "float32"))
    assert (to_numpy(label).tolist(), to_numpy(branch).tolist()) == (
        [wanted[0]],
        [wanted[1]],
    )


def test_decision_refuses_other_shapes():
    with pytest.raises(ValueError, match="Expected `logits` of shape"):
        branch_decision(np.zeros((2, 3)))


# ---- algorithm 1 -------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_equals_the_loop_over_cells(seed):
    generator = np.random.default_rng(seed)
    shape = tuple(generator.integers(1, 9, 2).tolist())
    size = tuple(generator.integers(1, 20, 2).tolist())
    stride = tuple(generator.integers(1, 6, 2).tolist())
    offset = tuple(generator.integers(-5, 6, 2).tolist())
    most = int(generator.integers(1, 8))
    threshold = float(generator.choice([0.0, 0.1, 0.3, 0.5, 0.8, 1.0]))
    percent = 100 if seed % 2 else int(generator.integers(1, 101))
    visits = max(1, shape[0] * shape[1] * percent // 100)
    maps = random_maps(generator, 250, shape)
    found = localize(maps, size, most, threshold, percent / 100, stride, offset)
    assert found["boxes"].dtype == np.dtype("int32")
    assert found["valid"].dtype == np.dtype("bool")
    wanted = [
        reference.localize(each, size, most, threshold, visits, stride, offset)
        for each in maps
    ]
    assert_same_patches(found, maps, wanted)


@pytest.mark.parametrize("seed", range(8))
def test_compat_equals_the_released_loop(seed):
    generator = np.random.default_rng(100 + seed)
    shape = tuple(generator.integers(2, 8, 2).tolist())
    size = tuple(generator.integers(1, 16, 2).tolist())
    stride = tuple(generator.integers(1, 6, 2).tolist())
    most = int(generator.integers(1, 7))
    thresholds = generator.choice([0.0, 0.1, 0.3, 0.5, 0.8, 1.0], most).tolist()
    maps = random_maps(generator, 250, shape)
    found = localize(maps, size, most, thresholds, stride=stride, compat=True)
    wanted = [
        reference.localize_as_released(each, size, most, thresholds, stride)
        for each in maps
    ]
    assert_same_patches(found, maps, wanted)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.8])
def test_properties_of_the_patches(threshold):
    maps = random_maps(np.random.default_rng(7), 150, (7, 11))
    found = localize(maps, 24, 6, threshold, 0.8)
    overlaps = to_numpy(iou(found["boxes"], found["boxes"]))
    apart = ~np.eye(6, dtype=bool)
    both = found["valid"][:, :, None] & found["valid"][:, None] & apart
    assert (
        (overlaps[both] < threshold).all()
        if threshold
        else (overlaps[both] == 0.0).all()
    )
    assert found["valid"][:, 0].all()
    np.testing.assert_array_equal(found["scores"][:, 0], maps.max(axis=(1, 2)))
    decreasing = np.diff(found["scores"]) <= 0
    assert decreasing[found["valid"][:, 1:]].all()
    # Patches come first, gaps last.
    assert (np.diff(found["valid"].astype(int)) <= 0).all()


def test_does_not_depend_on_where_a_cell_is_stored():
    maps = np.random.default_rng(8).standard_normal((40, 5, 8)).astype("float32")
    arguments = {"max_patches": 5, "iou_threshold": 0.4, "coverage": 0.9}
    found = localize(maps, (17, 23), **arguments)
    flipped = localize(maps.swapaxes(1, 2)[::-1], (23, 17), **arguments)
    np.testing.assert_array_equal(
        found["boxes"][::-1], flipped["boxes"][..., [1, 0, 3, 2]]
    )
    mirrored = localize(maps[:, :, ::-1], (17, 23), **arguments)
    boxes, width = found["boxes"], 7 * 8 + 23
    wanted = np.stack(
        [boxes[..., 0], width - boxes[..., 3], boxes[..., 2], width - boxes[..., 1]], -1
    )
    wanted[~found["valid"]] = -1
    np.testing.assert_array_equal(mirrored["boxes"], wanted)


def test_equal_cells_are_taken_row_by_row():
    # Negative and positive zero are equal.
    maps = np.where(np.arange(12) % 3, 0.0, -0.0).reshape((1, 3, 4)).astype("float32")
    found = localize(maps, 1, 12, stride=1)
    wanted = [[i, j] for i in range(3) for j in range(4)]
    np.testing.assert_array_equal(found["boxes"][0, :, :2], wanted)


@pytest.mark.parametrize(
    "cells, coverage, visits",
    [
        (441, 0.05, 22),
        (289, 0.04, 11),
        (225, 0.03, 6),
        (441, 0.3, 132),
        (289, 0.3, 86),
        (225, 0.3, 67),
        (100, 0.29, 29),
        (100, np.float32(0.07), 7),
        (9, 0.1, 1),
        (9, 1e-9, 1),
        (9, 1.0, 9),
    ],
)
def test_number_of_visited_cells(cells, coverage, visits):
    assert patches._visits(cells, coverage) == visits


def test_only_so_many_cells_are_visited():
    maps = random_maps(np.random.default_rng(3), 4, (21, 21))
    found = localize(maps, 63, 25, 1.0, 0.05)
    np.testing.assert_array_equal(found["valid"].sum(axis=1), 22)


def test_slack_patches_of_the_smallest_branch_are_the_largest_cells():
    maps = np.random.default_rng(4).standard_normal((5, 21, 21)).astype("float32")
    found = localize(maps, 63, 24, 0.8, 0.3)
    largest = np.sort(maps.reshape((5, -1)), axis=1)[:, :-25:-1]
    np.testing.assert_array_equal(found["scores"], largest)


def test_smaller_boxes_of_the_released_code_decide_one_case_otherwise():
    """Cells (2, 3) apart, 63 pixels: 0.3002 of the patches, 0.2943 of theirs."""
    maps = np.zeros((1, 4, 4), "float32")
    maps[0, 1, 0], maps[0, 3, 3] = 2.0, 1.0
    ours = localize(maps, 63, 2, 0.3)
    theirs = localize(maps, 63, 2, 0.3, compat=True)
    assert theirs["boxes"][0, 1].tolist() == [24, 24, 87, 87]
    assert not ours["valid"][0, 1]
    assert reference.overlap((0, 0, 63, 63), (16, 24, 79, 87)) == pytest.approx(
        0.3002, abs=5e-5
    )
    assert reference.overlap((0, 0, 62, 62), (16, 24, 78, 86)) == pytest.approx(
        0.2943, abs=5e-5
    )


def test_compat_accepts_the_top_left_patch_always():
    maps = np.zeros((1, 2, 3), "float32")
    maps[0, 0, :2] = 1.0, 2.0
    assert localize(maps, 63, 2, 0.3)["valid"].sum() == 1
    boxes = localize(maps, 63, 2, 0.3, compat=True)["boxes"]
    np.testing.assert_array_equal(boxes[0, :, :2], [[0, 8], [0, 0]])


def test_equal_to_the_threshold_is_too_much_unless_it_is_zero():
    # Half of a patch is shared: 4 of 12 pixels.
    maps = np.array([[[3.0, 2.0, 1.0]]], "float32")
    options = {"patch_size": (2, 4), "max_patches": 3, "stride": 2}
    third = localize(maps, iou_threshold=4 / 12, **options)
    assert third["scores"].tolist() == [[3.0, 1.0, 0.0]]
    above = localize(maps, iou_threshold=0.334, **options)
    assert above["scores"].tolist() == [[3.0, 2.0, 1.0]]
    assert localize(maps, iou_threshold=0.0, **options)["valid"].sum() == 2


def test_minus_infinity_is_no_evidence():
    maps = np.array([[[-np.inf, np.inf, 0.0]], [[-np.inf] * 3]], "float32")
    found = localize(maps, 2, 3, 0.5)
    np.testing.assert_array_equal(found["scores"], [[np.inf, 0.0, 0.0], [0.0] * 3])
    assert found["valid"].tolist() == [[True, True, False], [False] * 3]


def compiled(function):
    """Compiled by XLA, with unknown batch and map size where that is possible."""
    if BACKEND == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function, jit_compile=True)


@pytest.mark.skipif(BACKEND == "torch", reason="torch does not trace")
def test_nan_while_tracing_is_never_chosen():
    maps = np.array([[[1.0, np.nan, 3.0]], [[np.nan] * 3]], "float32")
    found = compiled(lambda maps: localize_patches(maps, 2, 3, 0.5, 0.8))(maps)
    assert to_numpy(found["scores"]).tolist() == [[3.0, 1.0, 0.0], [0.0] * 3]
    assert to_numpy(found["valid"]).tolist() == [[True, True, False], [False] * 3]


def test_known_nan_is_an_error_that_names_the_maps():
    maps = np.zeros((3, 2, 2), "float32")
    maps[1, 0, 1] = np.nan
    with pytest.raises(ValueError, match=r"without NaN.*in the maps \[1\]"):
        localize_patches(maps, 3, 2)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a graph of TensorFlow")
def test_graph_of_unknown_sizes():
    import tensorflow as tf

    def function(maps):
        return localize_patches(maps, 5, 4, 0.3, 0.6, stride=2)

    signature = [tf.TensorSpec((None, None, None), tf.float32)]
    graph = tf.function(function, input_signature=signature)
    signature = [tf.TensorSpec((None, 6, 4), tf.float32)]
    xla = tf.function(function, input_signature=signature, jit_compile=True)
    generator = np.random.default_rng(5)
    for shape in ((1, 6, 4), (7, 6, 4), (3, 5, 9)):
        maps = random_maps(generator, shape[0], shape[1:])
        wanted = localize(maps, 5, 4, 0.3, 0.6, stride=2)
        for function in (graph, xla)[: 2 if shape[1:] == (6, 4) else 1]:
            found = tree.map_structure(to_numpy, function(maps))
            for key in wanted:
                np.testing.assert_array_equal(found[key], wanted[key])


def test_half_precision_evidence_gives_float32_scores():
    maps = ops.cast(np.array([[[1.0, 2.5]]]), "bfloat16")
    found = localize_patches(maps, 2, 2)
    assert keras.backend.standardize_dtype(found["scores"].dtype) == "float32"
    assert to_numpy(found["scores"]).tolist() == [[2.5, 1.0]]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_patches": 0}, "max_patches.*=0"),
        ({"max_patches": 2.0}, "max_patches"),
        ({"max_patches": True}, "max_patches"),
        ({"iou_threshold": -0.1}, r"iou_threshold.*\[0, 1\].*=-0.1"),
        ({"iou_threshold": 1.1}, "iou_threshold"),
        ({"iou_threshold": float("nan")}, "iou_threshold"),
        ({"iou_threshold": [0.3, 0.3]}, "one number or, with `compat`"),
        ({"iou_threshold": [0.3], "compat": True}, "each of the 2 patches"),
        ({"coverage": 0.0}, r"coverage.*\(0, 1\].*=0.0"),
        ({"coverage": 1.5}, "coverage"),
        ({"coverage": float("nan")}, "coverage"),
        ({"patch_size": 0}, "patch_size.*positive"),
        ({"patch_size": (3, 4, 5)}, "patch_size"),
        ({"stride": 0}, "stride"),
        ({"offset": 0.5}, "offset"),
        ({"evidence": np.zeros((2, 3, 3, 1))}, "`evidence` of shape"),
    ],
)
def test_refuses_wrong_arguments(options, message):
    arguments = {"evidence": np.zeros((2, 3, 3)), "patch_size": 5, "max_patches": 2}
    with pytest.raises(ValueError, match=f"Expected.*{message}.*"):
        localize_patches(**{**arguments, **options})


# ---- pixels ------------------------------------------------------------------

BOXES = [
    [[2, 3, 9, 8], [0, 0, 7, 5], [16, 8, 23, 13]],  # inside, in the corners
    [[-3, -2, 4, 3], [19, 10, 26, 15], [30, 40, 37, 45]],  # partly and fully outside
    [[-1, -1, -1, -1], [4, 4, 8, 6], [1, 2, 12, 13]],  # absent, smaller, larger
]


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_crops_equal_slices(dtype):
    generator = np.random.default_rng(0)
    images = generator.integers(1, 255, (3, 23, 13, 2)).astype(dtype)
    found = crop_patches(images, np.array(BOXES), (7, 5))
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    found = to_numpy(found)
    assert found.shape == (3, 3, 7, 5, 2)
    for index in np.ndindex(3, 3):
        wanted = reference.crop(images[index[0]], BOXES[index[0]][index[1]], (7, 5))
        np.testing.assert_array_equal(found[index], wanted)
    assert found[0].all() and not found[1, 2].any() and not found[2, 0].any()


@pytest.mark.parametrize("offset", [0, -3])
def test_crops_of_chosen_patches_where_the_stride_does_not_divide_the_image(offset):
    generator = np.random.default_rng(1)
    images = generator.uniform(1.0, 2.0, (4, 37, 29, 3)).astype("float32")
    # As many cells as patches fit, floor((size - patch) / stride) + 1.
    maps = generator.standard_normal((4, 4, 3)).astype("float32")
    found = localize(maps, 11, 12, 1.0, offset=offset)
    crops = to_numpy(crop_patches(images, found["boxes"], 11))
    for index in np.ndindex(4, 12):
        wanted = reference.crop(images[index[0]], found["boxes"][index], (11, 11))
        np.testing.assert_array_equal(crops[index], wanted)
    assert (crops == 0.0).any() == (offset < 0)
    assert found["boxes"].max() == offset + 8 * 3 + 11


def test_gradient_of_a_crop_reaches_the_pixels_that_it_shows():
    images = np.random.default_rng(2).standard_normal((3, 23, 13, 2)).astype("float32")
    boxes = np.array(BOXES)
    (found,) = gradients(lambda x: ops.sum(crop_patches(x, boxes, (7, 5))), images)
    wanted = np.zeros(images.shape)
    for index, image_boxes in enumerate(BOXES):
        for y0, x0, y1, x1 in image_boxes:
            y1, x1 = min(y1, y0 + 7), min(x1, x0 + 5)
            wanted[index, max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] += 1.0
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    "shapes, size, message",
    [
        (((2, 9, 9), (2, 1, 4)), 3, "Expected `images` of shape"),
        (((2, 9, 9, 1), (2, 4)), 3, "`boxes` of shape"),
        (((2, 9, 9, 1), (2, 1, 5)), 3, "`boxes` of shape"),
        (((2, 9, 9, 1), (2, 1, 4)), 0, "`size` to be a positive integer"),
    ],
)
def test_crop_refuses_wrong_arguments(shapes, size, message):
    images, boxes = map(np.zeros, shapes)
    with pytest.raises(ValueError, match=message):
        crop_patches(images, boxes, size)
