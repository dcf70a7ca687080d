"""Loss of DINO, its centre, and the entropy that shows a collapse."""

from keras import ops

from keras_attn.ops.precision import float32_at_least


def dino_loss(
    student,
    teacher,
    center=0.0,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
):
    """Cross-entropy of a student with its teacher, over views of the same images.

    Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", eq. (2)
    and (3) with the centring of section 3.1. For every view of the teacher and every
    *other* view of the student

        - sum_j q_j log p_j,  q = softmax((t - c) / tau_t),  p = softmax(s / tau_s)

    and of that the mean over the pairs and the images: `2 * views - 2` pairs where the
    teacher sees two views. No gradient reaches the teacher. Never less than the
    teacher's mean entropy, see `teacher_entropy`.

    Args:
        student: The student's scores s, `(batch, views, units)`.
        teacher: The teacher's scores t, `(batch, teacher_views, units)`: its views are
            the student's first ones, in the same order.
        center: c, `(units,)`.
        student_temperature: tau_s, positive.
        teacher_temperature: tau_t, positive; below tau_s it sharpens. A number or a
            tensor.

    Returns:
        Scalar, float32 at least.

    Raises:
        ValueError: If the shapes do not fit, or there is no pair of different views.

    Example:

    >>> scores = np.zeros((5, 3, 4096), "float32")
    >>> round(float(dino_loss(scores, scores[:, :2])), 4)
    8.3178

    Reference: [caron2021] arXiv:2104.14294, equations (2) and (3).
    """
    student = ops.convert_to_tensor(student)
    teacher = ops.convert_to_tensor(teacher)
    views, shared = ([*x.shape, 0, 0][1] for x in (student, teacher))
    images = {tuple(x.shape[:1]) for x in (student, teacher)} - {(None,)}
    if (
        len(student.shape) != 3
        or len(teacher.shape) != 3
        or len(images) > 1
        or (0,) in images
        or student.shape[-1] != teacher.shape[-1]
        or not 1 <= shared <= views
        or views < 2
    ):
        raise ValueError(
            "Expected scores of at least 2 views, (batch, views, units), and of the "
            "teacher for the first of them, of the same images, at least one. "
            f"Received: student of shape {tuple(student.shape)}, teacher of shape "
            f"{tuple(teacher.shape)}"
        )
    target = teacher_probabilities(teacher, center, teacher_temperature)
    log_p = ops.log_softmax(float32_at_least(student) / student_temperature, axis=-1)
    # Sum over all views but the teacher's own, without a loop over pairs.
    others = ops.sum(log_p, axis=1, keepdims=True) - log_p[:, :shared]
    return -ops.mean(ops.sum(target * others, axis=-1)) / (views - 1)


def teacher_probabilities(teacher, center=0.0, temperature=0.04):
    """The teacher's centred and sharpened q of `dino_loss`, without gradient."""
    return ops.softmax(_sharpened(teacher, center, temperature), axis=-1)


def teacher_entropy(teacher, center=0.0, temperature: float = 0.04):
    """Mean entropy of the teacher's probabilities.

    Zero, or `ln(units)`, when the teacher has collapsed.

    Args:
        teacher: Scores, `(..., units)`.
        center: `(units,)`.
        temperature: Positive number.

    Returns:
        Scalar, float32 at least.
    """
    log_q = ops.log_softmax(_sharpened(teacher, center, temperature), axis=-1)
    return -ops.mean(ops.sum(ops.exp(log_q) * log_q, axis=-1))


def _sharpened(teacher, center, temperature):
    scores = ops.stop_gradient(ops.convert_to_tensor(teacher))
    center = ops.convert_to_tensor(center)
    if tuple(center.shape) not in ((), (scores.shape[-1],)):
        raise ValueError(
            f"Expected `center` of shape ({scores.shape[-1]},), the teacher's units. "
            f"Received: center.shape={tuple(center.shape)}"
        )
    scores = float32_at_least(scores)
    return (scores - ops.cast(center, scores.dtype)) / temperature


def next_center(center, teacher, momentum: float = 0.9):
    """The centre for the next step: `momentum * c + (1 - momentum) * mean(t)`.

    Section 3.1, eq. (4).

    Args:
        center: c, `(units,)`.
        teacher: Scores t of the teacher, `(..., units)`.
        momentum: Number in [0, 1).

    Returns:
        `(units,)`, in the dtype of `center`.
    """
    scores = ops.stop_gradient(ops.convert_to_tensor(teacher))
    center = ops.convert_to_tensor(center)
    scores = ops.cast(scores, center.dtype)
    mean = ops.mean(ops.reshape(scores, (-1, scores.shape[-1])), axis=0)
    return momentum * center + (1 - momentum) * mean
