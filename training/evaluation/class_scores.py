"""Scores of a classifier by class, and the calibration of its confidence."""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

# 95 % of a standard normal distribution lie within this distance of the mean.
NORMAL_95 = 1.959963984540054
BINS = 15


def wilson_interval(right, total):
    """The 95 % confidence interval of a share, after Wilson (1927).

    Unlike the normal approximation it stays within 0..1, also for few examples and for
    shares near the ends. At least one trial, `total`, is needed.

    >>> wilson_interval(8, 10)
    (0.4901624715366418, 0.9433178485456247)
    """
    share = right / total
    square = NORMAL_95**2 / total
    centre = share + square / 2
    half = NORMAL_95 * math.sqrt(share * (1 - share) / total + square / total / 4)
    ends = ((centre - half) / (1 + square), (centre + half) / (1 + square))
    return max(ends[0], 0.0), min(ends[1], 1.0)


def confusion_matrix(labels, predicted, num_classes):
    """Counts of a class (row) taken for a class (column): `(classes, classes)`."""
    matrix = np.zeros((num_classes, num_classes), int)
    np.add.at(matrix, (np.asarray(labels), np.asarray(predicted)), 1)
    return matrix


@dataclasses.dataclass(frozen=True)
class ClassScore:
    """Scores of one class; shares in 0..1, `None` where 0 of 0.

    Args:
        label: The class.
        images: Images of it.
        predictions: Images that were taken for it.
        precision: Share of `predictions` that belong to it.
        recall: Share of `images` that were taken for it.
        f1: Harmonic mean of both: 0 where no image was recognised, `None` where there
            are neither images nor predictions.
        mostly: The class that its images are most often mistaken for, or `None`.
    """

    label: int
    images: int
    predictions: int
    precision: float | None
    recall: float | None
    f1: float | None
    mostly: int | None


def class_scores(matrix):
    """The `ClassScore` of every class of a confusion matrix."""
    scores = []
    for label, row in enumerate(matrix):
        right, images, predictions = row[label], row.sum(), matrix[:, label].sum()
        mistaken = row.copy()
        mistaken[label] = 0
        scores.append(
            ClassScore(
                label,
                int(images),
                int(predictions),
                _share(right, predictions),
                _share(right, images),
                _share(2 * right, images + predictions),
                int(mistaken.argmax()) if mistaken.any() else None,
            )
        )
    return scores


class Confused(NamedTuple):
    """A class, the class that it was taken for, and the number of times."""

    label: int
    predicted: int
    times: int


def most_confused(matrix, count):
    """The most frequent mistakes, at most `count`, as a list of `Confused`."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = [np.unravel_index(place, wrong.shape) for place in order]
    return [
        Confused(int(label), int(predicted), int(wrong[label, predicted]))
        for label, predicted in pairs
        if wrong[label, predicted]
    ]


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Confidence of a model beside its accuracy.

    The confidence of an answer is the probability of the class that it names.

    Args:
        edges: `(bins + 1,)`, from 0 to 1; a bin holds its upper edge.
        counts: `(bins,)` images.
        confidence: `(bins,)` mean confidence, NaN in empty bins.
        accuracy: `(bins,)` share of right answers, NaN in empty bins.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def filled(self):
        """Edges, number, confidence and accuracy of every bin that is not empty."""
        columns = self.edges[:-1], self.edges[1:], self.counts.tolist()
        rows = zip(*columns, self.confidence, self.accuracy, strict=True)
        return [row for row in rows if row[2]]

    @property
    def error(self):
        """Expected calibration error: mean of the bins' gaps, weighted by images."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float(np.nansum(gaps * self.counts) / self.counts.sum())

    @property
    def excess(self):
        """Mean confidence minus accuracy; positive: the model is overconfident."""
        gaps = self.confidence - self.accuracy
        return float(np.nansum(gaps * self.counts) / self.counts.sum())


def calibration(probabilities, labels, bins=BINS):
    """Confidence against accuracy, Guo et al. (2017), in bins of equal width.

    Probabilities are `(examples, classes)`, labels `(examples,)` integers.
    """
    return binned(
        probabilities.max(axis=-1), probabilities.argmax(axis=-1) == labels, bins
    )


def binned(confidence, right, bins=BINS):
    """The `Calibration` of answers, of their confidence and whether they are right."""
    edges = np.linspace(0, 1, bins + 1)
    places = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [
            np.bincount(places, values, minlength=bins) / counts
            for values in (confidence, right)
        ]
    return Calibration(edges, counts, *means)


def _share(part, whole):
    return float(part / whole) if whole else None
