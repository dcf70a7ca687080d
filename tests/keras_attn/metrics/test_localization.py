import numpy as np
import pytest

from keras_attn.metrics.localization import localization_errors
from tests.reference import localization as reference

TRUE = [10, 10, 20, 20]
HALF = [10, 10, 20, 15]  # an IoU of exactly 0.5
LESS = [10, 10, 19, 15]  # 45 / 100
ABSENT = [-1] * 4

# Boxes of the true class 3, ranked predictions, and which errors an image makes.
IMAGES = [
    (TRUE, [3, 0, 1, 2, 4, 5], ()),
    (HALF, [0, 1, 2, 4, 3, 5], ("top1",)),
    (HALF, [0, 1, 2, 4, 5, 3], ("top1", "top5")),
    (LESS, [3, 0, 1, 2, 4, 5], ("top1", "top5", "ground_truth_known")),
    (ABSENT, [3, 0, 1, 2, 4, 5], ("top1", "top5", "ground_truth_known")),
]


@pytest.mark.parametrize("chosen", [[0], [1], [2], [3], [4], range(5)])
def test_errors_of_single_images_and_of_all(chosen):
    boxes, predictions, errors = zip(*(IMAGES[i] for i in chosen), strict=True)
    labels, truth = np.full(len(boxes), 3), np.array([TRUE] * len(boxes))
    found = localization_errors(boxes, predictions, labels, truth)
    for name in ("top1", "top5", "ground_truth_known"):
        wanted = np.mean([name in each for each in errors])
        assert found[name] == pytest.approx(wanted), name


def test_equals_inclusive_boxes_image_by_image():
    random = np.random.default_rng(0)
    corners = random.integers(0, 5, (2, 200, 2))
    ends = corners + random.integers(2, 8, (2, 200, 2))
    boxes, truth = np.concatenate([corners, ends], axis=-1)
    predictions = np.argsort(random.random((200, 7)), axis=1)
    labels = random.integers(0, 7, 200)
    wrong = {"top1": 0, "top3": 0, "ground_truth_known": 0}
    for i in range(200):
        inside = [boxes[i] - [0, 0, 1, 1], truth[i] - [0, 0, 1, 1]]
        missed = reference.inclusive_iou(*inside) < 0.3
        wrong["top1"] += missed or predictions[i, 0] != labels[i]
        wrong["top3"] += missed or labels[i] not in predictions[i, :3].tolist()
        wrong["ground_truth_known"] += missed
    found = localization_errors(boxes, predictions, labels, truth, 0.3, top=3)
    assert found == pytest.approx({name: n / 200 for name, n in wrong.items()})
    assert 0.1 < found["ground_truth_known"] < found["top3"] < found["top1"] < 1.0


def test_any_true_box_will_do():
    truth = np.array([[[50, 50, 60, 60], TRUE], [[50, 50, 60, 60], ABSENT]])
    found = localization_errors([TRUE, TRUE], [[3], [3]], [3, 3], truth)
    assert found == {"top1": 0.5, "top5": 0.5, "ground_truth_known": 0.5}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"boxes": np.zeros((2, 4))}, r"boxes \(N, 4\).*\(2, 4\)"),
        ({"predictions": [3]}, r"predictions \(N, k\)"),
        ({"true_boxes": np.zeros((1, 3))}, r"true boxes"),
        ({"true_boxes": [ABSENT]}, "every image.*1 images without one, the first is 0"),
    ],
)
def test_refuses_wrong_arguments(change, message):
    given = {"boxes": [TRUE], "predictions": [[3]], "labels": [3]}
    given = {**given, "true_boxes": [TRUE], **change}
    with pytest.raises(ValueError, match=f"Expected.*{message}"):
        localization_errors(**given)
