"""The images that a model is most wrong about."""

import dataclasses

import numpy as np

from keras_attn.training.evaluation.evaluate import judged_outputs
from keras_attn.training.runs.outputs import softmax, with_outputs


@dataclasses.dataclass(frozen=True)
class Mistake:
    """One image that was taken for another class.

    Args:
        index: Its position among the evaluated images.
        label: Its class.
        predicted: The class that it was taken for.
        probability: Probability of that wrong class, 0..1.
        image: `(height, width, 3)` 8-bit pixels, as the model gets them.
    """

    index: int
    label: int
    predicted: int
    probability: float
    image: np.ndarray


def check_excluding(found):
    """Raises for a model of labels, of which none is taken for another.

    Args:
        found: `EvaluationData`.
    """
    if found.labels.ndim > 1:
        raise ValueError(
            "Expected a model whose classes exclude each other. Received: "
            f"{found.trained.path}, with labels; `keras-attn evaluate` has their scores"
        )


def worst_mistakes(model, images, labels, count=12, batch_size=128):
    """The images that a model gives to a wrong class with the highest probability.

    A list of at most `count` `Mistake`s, the most probable wrong class first. Other
    arguments and errors are those of `evaluate_model`.
    """
    model = with_outputs(model, ["logits"])
    logits, _ = judged_outputs(model, images, labels, batch_size)
    return mistakes_among(logits, images, labels, count)


def mistakes_among(logits, images, labels, count=12):
    """`worst_mistakes` where the `(examples, classes)` logits are known.

    Raises:
        ValueError: If `count` is below 0.
    """
    if count < 0:
        raise ValueError(f"Expected `count` of at least 0. Received: count={count}")
    labels = np.asarray(labels)
    probabilities = softmax(logits)
    # The first of equal logits, as in the accuracy.
    predicted = np.asarray(logits).argmax(axis=-1)
    highest = probabilities[np.arange(len(labels)), predicted]
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-highest[wrong], kind="stable")][:count]
    # At once, so that images in files are read in one go.
    pixels = np.asarray(images[worst]) if len(worst) else ()
    return [
        Mistake(
            int(index),
            int(labels[index]),
            int(predicted[index]),
            float(highest[index]),
            image,
        )
        for index, image in zip(worst, pixels, strict=True)
    ]
