import numpy as np
import pytest

from keras_attn.training.evaluation.mistakes import mistakes_among, worst_mistakes
from tests.training import tiny_models as tiny


def test_mistakes_are_ordered_by_the_probability_of_the_wrong_class():
    # Red, slightly green, very green, blue, all but the first and last labelled red.
    images = np.stack(
        [
            tiny.plain_image(red=200),
            tiny.plain_image(red=10, green=60),
            tiny.plain_image(green=250),
            tiny.plain_image(blue=90),
            tiny.plain_image(blue=120, red=119),
        ]
    )
    labels = np.array([0, 0, 0, 2, 0])
    found = worst_mistakes(tiny.colour_model(), images, labels, batch_size=2)
    assert [each.index for each in found] == [2, 1, 4]
    assert [each.predicted for each in found] == [1, 1, 2]
    assert {each.label for each in found} == {0}
    # Logits are ten times the colour.
    odds = np.exp([10 * 250 / 255, 0, 0])
    assert found[0].probability == pytest.approx(odds[0] / odds.sum(), rel=1e-4)
    np.testing.assert_array_equal(found[1].image, images[1])
    few = worst_mistakes(tiny.colour_model(), images, labels, count=1)
    assert [each.index for each in few] == [2]


def test_equal_logits_count_as_in_the_accuracy():
    logits = np.zeros((3, 4), "float32")
    images = np.zeros((3, 2, 2, 3), "uint8")
    found = mistakes_among(logits, images, np.array([0, 1, 3]))
    assert [(each.index, each.predicted) for each in found] == [(1, 0), (2, 0)]
    assert found[0].probability == pytest.approx(0.25)


def test_labels_that_are_wrong_or_missed():
    logits = np.array([[3.0, -1.0], [-2.0, 0.5], [0.0, 4.0]])
    truth = np.array([[0, 1], [0, 1], [1, 0]], bool)
    images = np.arange(3, dtype="uint8")[:, None, None, None] * np.ones((1, 2, 2, 3))
    found = mistakes_among(logits, images, truth, thresholds=np.array([0.6, 0.5]))
    answers = [(each.index, each.label, each.predicted) for each in found]
    assert answers == [(2, None, 1), (0, None, 0), (0, 1, None), (2, 0, None)]
    p = 1 / (1 + np.exp(-np.array([4.0, 3.0, 1.0, 0.0])))
    assert [each.probability for each in found] == pytest.approx(p.tolist())
    assert [each.image[0, 0, 0] for each in found] == [2, 0, 0, 2]


def test_no_mistakes_are_no_error_and_negative_counts_are():
    logits = np.eye(3)
    images = np.zeros((3, 2, 2, 3), "uint8")
    assert mistakes_among(logits, images, np.arange(3)) == []
    with pytest.raises(ValueError, match="count=-1"):
        mistakes_among(logits, images, np.arange(3), count=-1)
