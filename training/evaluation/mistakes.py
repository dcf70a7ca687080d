"""The images that a model is most wrong about."""

import dataclasses

import numpy as np

from keras_attn.training.evaluation.evaluate import judged_outputs
from keras_attn.training.runs.outputs import sigmoid, softmax, with_outputs


@dataclasses.dataclass(frozen=True)
class Mistake:
    """One image that was taken for another class.

    Args:
        index: Its position among the evaluated images.
        label: Its class; of a model of labels the one that was missed, or `None`.
        predicted: The class that it was taken for; `None` for a missed label.
        probability: Probability of that wrong answer, 0..1.
        image: `(height, width, 3)` 8-bit pixels, as the model gets them.
    """

    index: int
    label: int | None
    predicted: int | None
    probability: float
    image: np.ndarray


def worst_mistakes(model, images, labels, count=12, batch_size=128):
    """The images that a model gives to a wrong class with the highest probability.

    A list of at most `count` `Mistake`s, the most probable wrong class first. Other
    arguments and errors are those of `evaluate_model`.
    """
    model = with_outputs(model, ["logits"])
    logits, _ = judged_outputs(model, images, labels, batch_size)
    return mistakes_among(logits, images, labels, count)


def mistakes_among(logits, images, labels, count=12, thresholds=0.5):
    """`worst_mistakes` where the `(examples, classes)` logits are known.

    `labels` may be `(examples, classes)` booleans of labels that do not exclude each
    other, which are named from their `thresholds`; each of an image may be a mistake.

    Raises:
        ValueError: If `count` is below 0.
    """
    if count < 0:
        raise ValueError(f"Expected `count` of at least 0. Received: count={count}")
    labels = np.asarray(labels)
    find = _wrong_classes if labels.ndim == 1 else _wrong_labels
    wrong, answers, highest = find(logits, labels, thresholds)
    order = np.argsort(-highest, kind="stable")[:count]
    # At once, so that images in files are read in one go.
    pixels = np.asarray(images[wrong[order]]) if len(order) else ()
    return [
        Mistake(int(wrong[place]), *answers[place], float(highest[place]), image)
        for place, image in zip(order, pixels, strict=True)
    ]


def _wrong_classes(logits, labels, _):
    """Images, pairs of their class and the predicted one, and its probability."""
    # The first of equal logits, as in the accuracy.
    predicted = np.asarray(logits).argmax(axis=-1)
    wrong = np.flatnonzero(predicted != labels)
    answers = np.stack([labels, predicted], axis=1)[wrong].tolist()
    return wrong, answers, softmax(logits)[wrong, predicted[wrong]]


def _wrong_labels(logits, truth, thresholds):
    probabilities = sigmoid(logits)
    named = probabilities >= thresholds
    wrong, labels = np.nonzero(named != truth)
    answers = [
        (None, label) if named[index, label] else (label, None)
        for index, label in zip(wrong.tolist(), labels.tolist(), strict=True)
    ]
    certainty = np.where(named, probabilities, 1 - probabilities)
    return wrong, answers, certainty[wrong, labels]
