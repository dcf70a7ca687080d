import numpy as np
import pytest

from keras_attn.pipelines.generated.dataset import generate, generated_source

FIELDS = ("images", "labels", "boxes", "part_boxes", "masks")


@pytest.fixture(scope="module")
def hard():
    return generate(60, image_size=37, difficulty=1.0, seed=5)


def assert_same(left, right):
    for field in FIELDS:
        np.testing.assert_array_equal(
            getattr(left, field), getattr(right, field), err_msg=field
        )


def rows(data, chosen):
    return {field: getattr(data, field)[chosen] for field in FIELDS}


def loop_box(mask):
    """The tight half-open box by looking at every pixel."""
    box = None
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            if mask[y, x]:
                if box is None:
                    box = [y, x, y + 1, x + 1]
                box = [
                    min(box[0], y),
                    min(box[1], x),
                    max(box[2], y + 1),
                    max(box[3], x + 1),
                ]
    return [-1] * 4 if box is None else box


def ridge_accuracy(difficulty):
    """Best held-out accuracy of linear classifiers over a range of penalties."""
    train, test = 400, 200
    data = generate(train + test, difficulty=difficulty, seed=2)
    pixels = data.images.reshape(train + test, -1).astype("float32") / 255
    pixels -= pixels[:train].mean(axis=0)
    targets = np.eye(10, dtype="float32")[data.labels[:train]]
    gram = pixels @ pixels[:train].T
    accuracies = []
    for penalty in (10.0, 100.0, 1000.0):
        dual = np.linalg.solve(gram[:train] + penalty * np.eye(train), targets)
        predicted = (gram[train:] @ dual).argmax(axis=1)
        accuracies.append(np.mean(predicted == data.labels[train:]))
    return max(accuracies)


def test_shapes_and_types(hard):
    assert hard.images.shape == (60, 37, 37, 3) and hard.images.dtype == "uint8"
    assert hard.labels.shape == (60,) and hard.labels.dtype == "int32"
    assert hard.boxes.shape == (60, 4) and hard.boxes.dtype == "int32"
    assert hard.part_boxes.shape == (60, 5, 4) and hard.part_boxes.dtype == "int32"
    assert hard.masks.shape == (60, 37, 37) and hard.masks.dtype == "bool"
    assert len(hard.part_names) == 5 and len(set(hard.class_names)) == 10
    assert hard.class_names[0] == (
        "beak-pointed_wing-leaf_tail-fan_foot-legs_crest-comb"
    )


def test_same_arguments_same_examples(hard):
    assert_same(hard, generate(60, image_size=37, difficulty=1.0, seed=5))


def test_an_example_does_not_depend_on_how_many_are_made(hard):
    few = generate(7, image_size=37, difficulty=1.0, seed=5)
    later = generate(20, image_size=37, difficulty=1.0, seed=5, start=33)
    for field, values in rows(hard, slice(0, 7)).items():
        np.testing.assert_array_equal(getattr(few, field), values)
    for field, values in rows(hard, slice(33, 53)).items():
        np.testing.assert_array_equal(getattr(later, field), values)


def test_seeds_and_indices_give_different_examples(hard):
    other = generate(60, image_size=37, difficulty=1.0, seed=6)
    assert (other.labels != hard.labels).any()
    flat = np.concatenate([hard.images, other.images]).reshape(120, -1)
    assert len(np.unique(flat, axis=0)) == 120


@pytest.mark.parametrize("num_classes", [2, 7, 64])
def test_labels_are_balanced_in_every_block(num_classes):
    labels = generate(3 * num_classes, num_classes=num_classes, seed=1).labels
    for block in labels.reshape(3, num_classes):
        assert sorted(block) == list(range(num_classes))
    assert len(np.unique(labels.reshape(3, num_classes), axis=0)) > 1


@pytest.mark.parametrize("num_classes", [2, 3, 10, 11, 41, 64])
def test_every_class_has_a_neighbour_that_differs_in_one_part(num_classes):
    names = generate(1, num_classes=num_classes).class_names
    parts = np.array([name.split("_") for name in names])
    assert len(set(names)) == num_classes
    different = (parts[:, None] != parts[None]).sum(axis=-1)
    np.fill_diagonal(different, 99)
    assert (different.min(axis=1) == 1).all()


def test_no_part_alone_tells_one_of_the_ten_classes():
    parts = np.array([name.split("_") for name in generate(1).class_names])
    for column in parts.T:
        assert (np.unique(column, return_counts=True)[1] == 5).all()


def test_boxes_are_the_tight_boxes_of_the_masks(hard):
    expected = [loop_box(mask) for mask in hard.masks]
    np.testing.assert_array_equal(hard.boxes, expected)
    assert hard.boxes.min() >= 0


def test_part_boxes_lie_in_the_object_box(hard):
    visible = (hard.part_boxes != -1).all(axis=-1)
    hidden = (hard.part_boxes == -1).all(axis=-1)
    np.testing.assert_array_equal(visible, ~hidden)
    assert visible.mean() > 0.9
    boxes = np.broadcast_to(hard.boxes[:, None], hard.part_boxes.shape)
    inside, outside = hard.part_boxes[visible], boxes[visible]
    assert (inside[:, :2] >= outside[:, :2]).all()
    assert (inside[:, 2:] <= outside[:, 2:]).all()
    assert (inside[:, :2] < inside[:, 2:]).all()


def test_parts_sit_where_the_plain_pose_puts_them():
    # Beak to the right, tail to the left, crest above, foot below, wing inside.
    data = generate(20, image_size=50, difficulty=0.0)
    centres = (data.part_boxes[..., :2] + data.part_boxes[..., 2:]) / 2
    centre = dict(zip(data.part_names, centres.transpose(1, 2, 0), strict=True))
    y, x = centre["wing"]
    assert (centre["beak"][1] > x + 10).all() and (centre["tail"][1] < x - 10).all()
    assert (centre["crest"][0] < y - 8).all() and (centre["foot"][0] > y + 8).all()


def test_the_object_fills_the_promised_share_of_the_image():
    data = generate(50, image_size=200, difficulty=0.5)
    sides = (data.boxes[:, 2:] - data.boxes[:, :2]).max(axis=1) / 200
    assert sides.min() > 0.4 and sides.max() < 0.91
    # Occlusion, rare at this difficulty, is all that can make it smaller.
    assert np.mean(sides > 0.54) > 0.9


def test_the_same_scene_at_another_size():
    small, large = generate(40, 32, seed=3), generate(40, 96, seed=3)
    np.testing.assert_array_equal(small.labels, large.labels)
    cells = large.masks.reshape(40, 32, 3, 32, 3).mean(axis=(2, 4)) >= 0.5
    union = (cells | small.masks).sum(axis=(1, 2))
    overlap = (cells & small.masks).sum(axis=(1, 2)) / union
    assert overlap.min() > 0.8 and overlap.mean() > 0.92
    averaged = large.images.reshape(40, 32, 3, 32, 3, 3).mean(axis=(2, 4))
    assert np.abs(averaged - small.images).mean() < 6
    assert np.abs(averaged - small.images[::-1]).mean() > 30


def test_a_mask_separates_other_colours():
    # Without texture and clutter, background pixels vary less than the object's.
    data = generate(10, image_size=64, difficulty=0.0)
    for image, mask in zip(data.images, data.masks, strict=True):
        assert image[mask].std(axis=0).mean() > 2 * image[~mask].std(axis=0).mean()


def test_a_linear_classifier_of_pixels_does_badly():
    # The plain poses are linearly separable, so the method of the test has power.
    assert ridge_accuracy(0.0) > 0.9
    assert ridge_accuracy(0.25) < 0.2


def test_difficulty_spreads_poses_and_clutters_the_background():
    spreads, clutter = [], []
    for difficulty in (0.0, 0.25, 0.5, 1.0):
        data = generate(80, image_size=48, difficulty=difficulty, seed=4)
        sides = np.sqrt(data.masks.mean(axis=(1, 2)))
        spreads.append(sides.std() / sides.mean())
        steps = np.abs(np.diff(data.images.astype("float32"), axis=2)).mean(axis=-1)
        outside = ~(data.masks[:, :, 1:] | data.masks[:, :, :-1])
        clutter.append(steps[outside].mean())
    assert spreads == sorted(spreads) and spreads[-1] > 2 * spreads[0]
    assert clutter == sorted(clutter) and clutter[-1] > 4 * clutter[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"examples": 0},
        {"examples": 2.5},
        {"image_size": 31},
        {"image_size": 449},
        {"image_size": (32, 32)},
        {"num_classes": 1},
        {"num_classes": 65},
        {"num_classes": True},
        {"difficulty": -0.1},
        {"difficulty": 1.1},
        {"difficulty": float("nan")},
        {"difficulty": "hard"},
        {"seed": -1},
        {"start": -1},
    ],
)
def test_bad_arguments(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"Expected `{name}` .*Received: {name}="):
        generate(**{"examples": 3, **wrong})


@pytest.mark.parametrize("size", [32, 448])
def test_the_smallest_and_the_largest_image(size):
    assert generate(1, image_size=size).images.shape == (1, size, size, 3)


def test_source():
    source = generated_source(30, image_size=33, num_classes=5, seed=9)
    data = generate(30, image_size=33, num_classes=5, seed=9)
    assert source.name == "generated" and len(source) == 30
    assert source.class_names == data.class_names
    np.testing.assert_array_equal(source.images, data.images)
    np.testing.assert_array_equal(source.labels, data.labels)
    np.testing.assert_array_equal(source.annotations["box"], data.boxes)
    np.testing.assert_array_equal(source.annotations["part_boxes"], data.part_boxes)
    np.testing.assert_array_equal(source.annotations["mask"], data.masks)
    np.testing.assert_array_equal(source.official["train"], np.arange(25))
    np.testing.assert_array_equal(source.official["test"], np.arange(25, 30))
    pixels = data.images[:25].reshape(-1, 3) / 255
    np.testing.assert_allclose(source.mean, pixels.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(source.std, pixels.std(axis=0), rtol=1e-4)
    assert source.licence.startswith("Apache-2.0")


def test_source_needs_an_example_on_both_sides():
    with pytest.raises(ValueError, match="Expected `examples` .* at least 2"):
        generated_source(1)
