import math

import numpy as np
import pytest

from keras_attn.losses.dino import (
    dino_loss,
    next_center,
    teacher_entropy,
    teacher_probabilities,
)
from tests.harness import gradients, to_numpy

VIEWS, BATCH, UNITS = 4, 3, 7


def scores(seed=0):
    generator = np.random.default_rng(seed)
    student = generator.standard_normal((BATCH, VIEWS, UNITS)).astype("float32")
    teacher = generator.uniform(-1, 1, (BATCH, 2, UNITS)).astype("float32")
    return student, teacher, generator.normal(0, 0.1, UNITS).astype("float32")


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def slow_loss(student, teacher, center, student_temperature, teacher_temperature):
    """Eq. (2) and (3), pair by pair and image by image."""
    pairs = []
    for t, teacher_view in enumerate(np.swapaxes(teacher, 0, 1)):
        for s, student_view in enumerate(np.swapaxes(student, 0, 1)):
            if s == t:
                continue
            for a, b in zip(teacher_view, student_view, strict=True):
                q = softmax((a - center) / teacher_temperature)
                p = softmax(b / student_temperature)
                pairs.append(-np.sum(q * np.log(p)))
    assert len(pairs) == (2 * VIEWS - 2) * BATCH
    return np.mean(pairs)


def test_equals_the_sum_over_pairs():
    student, teacher, center = scores()
    found = dino_loss(student, teacher, center, 0.2, 0.07)
    exact = [x.astype("float64") for x in (student, teacher, center)]
    wanted = slow_loss(*exact, 0.2, 0.07)
    assert float(found) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("units", [16, 65536])
def test_without_a_preference_it_is_the_logarithm_of_the_units(units):
    zeros = np.zeros((1, 3, units), "float32")
    assert float(dino_loss(zeros, zeros[:, :2])) == pytest.approx(math.log(units), 1e-5)
    assert float(teacher_entropy(zeros)) == pytest.approx(math.log(units), 1e-5)


def test_it_is_never_below_the_entropy_of_the_teacher():
    student, teacher, center = scores()
    entropy = float(teacher_entropy(teacher, center, 0.3))
    q = softmax((teacher.astype("float64") - center) / 0.3)
    assert entropy == pytest.approx(-np.mean(np.sum(q * np.log(q), -1)), rel=1e-5)
    assert float(dino_loss(student, teacher, center, 0.1, 0.3)) > entropy
    # A student that says what the teacher says reaches it.
    same = np.repeat(teacher[:, :1], 2, axis=1)
    copied = np.repeat(same[:, :1] - center, VIEWS, axis=1)
    reached = float(dino_loss(copied, same, center, 0.3, 0.3))
    assert reached == pytest.approx(float(teacher_entropy(same, center, 0.3)), rel=1e-5)


def test_no_gradient_reaches_the_teacher():
    student, teacher, center = scores()
    of_student, of_teacher = gradients(
        lambda s, t: dino_loss(s, t, center), student, teacher
    )
    assert np.abs(of_student).min() > 0
    assert of_teacher is None or not of_teacher.any()
    # Of a view the teacher does not see: the mean of p - q over its pairs.
    p = softmax(student[:, 3] / 0.1)
    q = softmax((teacher - center) / 0.04)
    wanted = (2 * p - q.sum(1)) / 0.1 / ((2 * VIEWS - 2) * BATCH)
    np.testing.assert_allclose(of_student[:, 3], wanted, atol=1e-5)


def test_a_center_takes_away_what_all_have_in_common():
    _, teacher, center = scores()
    shift = np.linspace(-1, 1, UNITS).astype("float32")
    np.testing.assert_allclose(
        to_numpy(teacher_probabilities(teacher + shift, center + shift, 0.1)),
        to_numpy(teacher_probabilities(teacher, center, 0.1)),
        atol=1e-5,
    )


def test_the_center_after_k_steps_has_a_closed_form():
    _, teacher, center = scores()
    mean = teacher.mean(axis=(0, 1))
    found = center
    for _ in range(5):
        found = to_numpy(next_center(found, teacher, 0.8))
    wanted = 0.8**5 * center + (1 - 0.8**5) * mean
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("student", "teacher"),
    [((3, 1, 7), (3, 1, 7)), ((3, 2, 7), (3, 3, 7)), ((3, 4, 7), (3, 2, 5))],
)
def test_scores_that_do_not_fit(student, teacher):
    with pytest.raises(ValueError, match="Expected scores of at least 2 views"):
        dino_loss(np.zeros(student, "float32"), np.zeros(teacher, "float32"))
