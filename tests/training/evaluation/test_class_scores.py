import numpy as np
import pytest

from keras_attn.training.evaluation.class_scores import (
    calibration,
    class_scores,
    confusion_matrix,
    most_confused,
    wilson_interval,
)

# Classes 0, 1, 2 and one that neither occurs nor is predicted.
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2])
PREDICTED = np.array([0, 0, 1, 2, 1, 0, 0, 0, 0])
MATRIX = [[2, 1, 1, 0], [2, 1, 0, 0], [2, 0, 0, 0], [0, 0, 0, 0]]


def answers(seed=0, examples=200, classes=6):
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.full(classes, 0.3), examples)
    return probabilities, generator.integers(0, classes - 1, examples)


def test_counts_by_hand():
    matrix = confusion_matrix(LABELS, PREDICTED, 4)
    assert matrix.tolist() == MATRIX
    first, second, third, fourth = class_scores(matrix)
    assert (first.images, first.predictions) == (4, 6)
    assert (first.precision, first.recall) == (2 / 6, 2 / 4)
    assert first.f1 == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))
    # Of equally frequent mistakes the first.
    assert (first.mostly, second.mostly, third.mostly) == (1, 0, 0)
    assert (third.predictions, third.precision, third.recall, third.f1) == (1, 0, 0, 0)
    assert (fourth.images, fourth.predictions) == (0, 0)
    assert (fourth.precision, fourth.recall, fourth.f1, fourth.mostly) == (None,) * 4
    assert most_confused(matrix, 3) == [(1, 0, 2), (2, 0, 2), (0, 1, 1)]
    assert len(most_confused(matrix, 99)) == 4


def test_class_scores_agree_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    probabilities, labels = answers()
    predicted = probabilities.argmax(axis=-1)
    matrix = confusion_matrix(labels, predicted, 6)
    np.testing.assert_array_equal(
        matrix, metrics.confusion_matrix(labels, predicted, labels=range(6))
    )
    expected = metrics.precision_recall_fscore_support(
        labels, predicted, labels=range(6), zero_division=0
    )
    found = class_scores(matrix)
    for name, values in zip(
        ("precision", "recall", "f1", "images"), expected, strict=True
    ):
        mine = [getattr(score, name) or 0.0 for score in found]
        np.testing.assert_allclose(mine, values, err_msg=name)


def test_interval_solves_wilsons_equation():
    # Its ends are the shares p at which |right / n - p| is 1.96 standard errors of p.
    for right, total in ((0, 5), (1, 9), (37, 53), (20, 20)):
        share = right / total
        for end in wilson_interval(right, total):
            assert 0 <= end <= 1
            distance = 1.959964 * np.sqrt(end * (1 - end) / total)
            assert abs(share - end) == pytest.approx(distance, abs=1e-6)


def test_interval_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(37, 53).proportion_ci(method="wilson")
    assert wilson_interval(37, 53) == pytest.approx((expected.low, expected.high))


def test_calibration_by_hand():
    # Confidences 0.5 (two right of two), 0.9 and 0.8 (one right of two).
    probabilities = np.array([[0.5, 0.5], [0.5, 0.5], [0.1, 0.9], [0.8, 0.2]])
    found = calibration(probabilities, np.array([0, 0, 1, 1]), bins=2)
    assert found.counts.tolist() == [2, 2]
    assert found.confidence == pytest.approx([0.5, 0.85])
    assert found.accuracy == pytest.approx([1.0, 0.5])
    assert found.error == pytest.approx((2 * 0.5 + 2 * 0.35) / 4)
    assert found.excess == pytest.approx((0.5 + 0.5 + 0.9 + 0.8 - 3) / 4)


def test_calibration_agrees_with_scikit_learn():
    curves = pytest.importorskip("sklearn.calibration")
    probabilities, labels = answers()
    found = calibration(probabilities, labels)
    right = probabilities.argmax(axis=-1) == labels
    accuracy, confidence = curves.calibration_curve(
        right, probabilities.max(axis=-1), n_bins=len(found.counts)
    )
    filled = found.counts > 0
    assert not filled.all()
    np.testing.assert_allclose(found.accuracy[filled], accuracy)
    np.testing.assert_allclose(found.confidence[filled], confidence)


def test_sure_answers_are_in_the_last_bin_and_counted_once():
    found = calibration(np.eye(3), np.array([0, 1, 1]), bins=4)
    assert found.counts.tolist() == [0, 0, 0, 3]
    assert found.error == pytest.approx(1 / 3)
