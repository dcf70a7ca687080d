"""Targets of explanations: classes, their differences, functions of the scores."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from keras import ops

from keras_attn.explain.maps import checked_labels, of_labels

# One function for every map of an image.
Target = int | Callable | Sequence[int | Callable]
# Most similar classes that Finer-CAM compares with, and the weight of their scores, as
# in the code of its authors.
NEAREST, STRENGTH = 3, 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class Objectives:
    """Targets of the maps of every image.

    Args:
        functions: From the scores of all images to one number per image, `(batch,)`;
            one function per map of an image.
        labels: `(batch, maps)`, for warnings; `None`: unknown.
        is_many: Whether an image has several maps, or one alone.
    """

    functions: list
    labels: np.ndarray | None
    is_many: bool

    def finish(self, maps):
        """Maps `(batch, maps, rows, columns)` as they were asked for."""
        return maps if self.is_many else maps[:, 0]


def objectives(logits, labels=None, target=None, against=None):
    """The `Objectives` of some arguments, see `keras_attn.explain.grad_cam`.

    Args:
        logits: Tensor of the scores of all images.
        labels, target, against: See `grad_cam`.
    """
    functions = functions_of(target, labels)
    is_list = is_several(target)
    if functions is not None:
        if against is not None:
            raise ValueError(
                "Expected a class as `target` of a comparison with others. "
                f"Received: target={target!r}, against={against!r}"
            )
        return Objectives(functions, None, is_list)
    if len(logits.shape) != 2:
        raise ValueError(
            "Expected a function as `target` of scores that are not (batch, classes), "
            "such as `keras_attn.explain.pixels(mask, label)`. "
            f"Received: scores {tuple(logits.shape)}, target={target!r}"
        )
    scores = ops.convert_to_numpy(ops.cast(logits, "float32"))
    is_many = is_list
    if target is None:
        labels = checked_labels(labels, scores)
        is_many = labels.ndim == 2
    else:
        labels = labels_of(target, scores)
    columns = np.reshape(labels, (len(labels), -1)).astype("int32")
    others = None if against is None else _others(scores, columns, against)
    functions = [
        _of_class(column, None if others is None else others[:, index])
        for index, column in enumerate(columns.T)
    ]
    return Objectives(functions, columns, is_many)


def pixels(mask: np.ndarray, label: int = 0) -> Callable:
    """Target of a segmentation: the sum of a class's scores over some pixels.

    Vinogradova et al., "Towards Interpretable Semantic Segmentation via Gradient-
    weighted Class Activation Mapping".

    Args:
        mask: Booleans or weights `(rows, columns)` or `(batch, rows, columns)` of the
            scores.
        label: The class, the last axis of the scores.

    Returns:
        Function from scores `(batch, rows, columns, classes)` to `(batch,)`.

    Example:

    >>> target = pixels(np.eye(2), label=1)
    >>> scores = np.arange(8.0).reshape(1, 2, 2, 2)
    >>> float(target(scores)[0])
    8.0

    Reference: [vinogradova2020] arXiv:2002.11434.
    """
    weights = np.asarray(mask, "float32")

    def target(scores):
        if tuple(scores.shape[1:3]) != weights.shape[-2:] or len(scores.shape) != 4:
            raise ValueError(
                "Expected a mask of the rows and columns of scores (batch, rows, "
                f"columns, classes). Received: mask {weights.shape}, scores "
                f"{tuple(scores.shape)}"
            )
        of_class = ops.cast(scores[..., label], "float32")
        return ops.sum(ops.convert_to_tensor(weights) * of_class, axis=(1, 2))

    return target


def similarity(embedding: np.ndarray | Sequence[float]) -> Callable:
    """Target of an embedding: its cosine with another one.

    Args:
        embedding: `(width,)` or `(batch, width)`, such as what the model returns for
            another image.

    Returns:
        Function from embeddings `(batch, width)` to `(batch,)`.

    Example:

    >>> target = similarity([3.0, 4.0])
    >>> round(float(target(np.array([[3.0, 0.0]]))[0]), 3)
    0.6
    """
    other = ops.normalize(ops.cast(np.atleast_2d(embedding), "float32"), axis=-1)

    def target(scores):
        return ops.sum(ops.normalize(scores, axis=-1) * other, axis=-1)

    return target


def is_several(target):
    """Test for a `target` with several maps of an image."""
    return isinstance(target, (list, tuple, np.ndarray))


def functions_of(target, labels=None):
    """The functions of a `target`, or `None` where it has classes.

    Raises:
        ValueError: If there are `labels`, too.
    """
    if target is not None and labels is not None:
        raise ValueError("Expected `labels` or `target`. Received: both")
    targets = target if isinstance(target, (list, tuple)) else [target]
    if not any(map(callable, targets)):
        return None
    return [_function(each) for each in targets]


def labels_of(target, scores):
    """int32 labels `(batch, classes)` of a class or a list of classes.

    Args:
        target: The same for all images.
        scores: `(batch, classes)`.
    """
    classes = _classes("target", target, scores)
    return np.tile(classes, (len(scores), 1)).astype("int32")


def _function(target):
    if not callable(target):
        raise ValueError(
            "Expected classes or functions as `target`, not both. "
            f"Received: {target!r} beside a function"
        )

    def function(scores):
        found = ops.cast(target(scores), "float32")
        if tuple(found.shape) != (scores.shape[0],):
            raise ValueError(
                "Expected `target` to be a function from the scores to one number per "
                f"image, ({scores.shape[0]},). Received: {tuple(found.shape)}"
            )
        return found

    return function


def _of_class(column, others):
    """Score of each image's class, less those of similar ones, as in Finer-CAM."""

    def function(logits):
        logits = ops.cast(logits, "float32")
        score = of_labels(logits, column)[:, 0]
        if others is None:
            return score
        similar = of_labels(logits, others)
        # Their probabilities, relative to each other.
        weights = ops.softmax(similar) if similar.shape[-1] > 1 else 1.0
        return score - STRENGTH * ops.sum(weights * similar, axis=-1)

    return function


def _others(scores, columns, against):
    """Classes to compare with, `(batch, maps, others)`."""
    if not isinstance(against, str):
        return np.tile(_classes("against", against, scores), (*columns.shape, 1))
    if against != "nearest":
        raise ValueError(
            "Expected `against` to be 'nearest', a class or a list of classes. "
            f"Received: against={against!r}"
        )
    if scores.shape[1] == 1:
        return 1 - columns[..., None]
    own = np.take_along_axis(scores, columns, axis=1)[..., None]
    distance = np.abs(scores[:, None] - own)
    np.put_along_axis(distance, columns[..., None], np.inf, axis=2)
    nearest = np.argsort(distance, axis=2, kind="stable")
    return nearest[..., : min(NEAREST, scores.shape[1] - 1)]


def _classes(name, given, scores):
    """One or several classes as integers `(classes,)`."""
    count, found = max(scores.shape[1], 2), np.atleast_1d(given)
    is_valid = found.ndim == 1 and found.size and found.dtype.kind in "iu"
    if not is_valid or not 0 <= found.min() <= found.max() < count:
        raise ValueError(
            f"Expected `{name}` to be a class in 0..{count - 1} or a list of classes. "
            f"Received: {name}={given!r}"
        )
    return found
