"""Scores of labels that do not exclude each other: several per image, or none."""

import numpy as np

from keras_attn.training.evaluation.class_scores import binned
from keras_attn.training.runs.outputs import sigmoid


def score_labels(logits, truth, thresholds=0.5):
    """Average precision, thresholds and F1 of labels.

    Args:
        logits: `(examples, labels)`.
        truth: `(examples, labels)` booleans.
        thresholds: Least probability of an answer, or one for each label.

    Returns:
        Dict of `examples`; `mean_average_precision`, over the labels that occur;
        `binary_cross_entropy` (nats per label); `exact`, the share of images whose
        labels are all right at the thresholds; `f1` at them, over all images and
        labels; and `labels`, for each a dict of `images` with it, `average_precision`,
        `f1` at its threshold, and the `threshold` with the best F1 on these images,
        `best_f1`; `None` for a label that does not occur.
    """
    logits, truth = np.asarray(logits, "float64"), np.asarray(truth, bool)
    probabilities = sigmoid(logits)
    found = probabilities >= thresholds
    losses = np.logaddexp(0, np.where(truth, -logits, logits))
    labels = [
        _score_label(*each)
        for each in zip(probabilities.T, found.T, truth.T, strict=True)
    ]
    precisions = [each["average_precision"] for each in labels if each["images"]]
    return {
        "examples": len(truth),
        "mean_average_precision": float(np.mean(precisions)) if precisions else None,
        "binary_cross_entropy": float(losses.mean()),
        "exact": float((found == truth).all(axis=1).mean()),
        "f1": f1(found, truth),
        "labels": labels,
    }


def label_calibration(logits, truth):
    """The `Calibration` of all labels together, and the error of each alone.

    A bin holds pairs of an image and a label, by the label's probability; accuracy is
    the share of them that have it.
    """
    probabilities, truth = sigmoid(logits), np.asarray(truth, bool)
    pairs = zip(probabilities.T, truth.T, strict=True)
    errors = [binned(*each).error for each in pairs]
    return binned(probabilities.ravel(), truth.ravel()), errors


def f1(found, truth):
    """The harmonic mean of precision and recall; 0 where nothing is right."""
    total = int(found.sum() + truth.sum())
    return float(2 * (found & truth).sum() / total) if total else 0.0


def curve(probabilities, truth):
    """Precision and recall at every threshold, the highest first.

    Returns:
        Thresholds, precision and recall; images of equal probability count together.
    """
    order = np.argsort(-probabilities, kind="stable")
    values, right = probabilities[order], np.cumsum(truth[order])
    ends = np.flatnonzero(np.append(np.diff(values) != 0, True))
    return values[ends], right[ends] / (ends + 1), right[ends] / truth.sum()


def _score_label(probabilities, found, truth):
    if not truth.any():
        names = ("average_precision", "f1", "threshold", "best_f1")
        return {"images": 0, **dict.fromkeys(names)}
    thresholds, precision, recall = curve(probabilities, truth)
    both = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return {
        "images": int(truth.sum()),
        "average_precision": float(np.sum(np.diff(recall, prepend=0) * precision)),
        "f1": f1(found, truth),
        "threshold": float(thresholds[both.argmax()]),
        "best_f1": float(both.max()),
    }


def truth_of(source, positions, count):
    """`(examples, labels)` booleans of a source's images, for the labels of a model.

    Args:
        source: `Source`; its annotation `labels`, where it has one, holds all labels of
            an image, and its `labels` a single one else.
        positions: For each class of the source the label of the model.
        count: Number of the model's labels.
    """
    own = source.annotations.get("labels")
    if own is None:
        own = np.eye(len(source.class_names), dtype=bool)[source.labels]
    truth = np.zeros((len(own), count), bool)
    truth[:, positions] = own
    return truth


def format_labels(result):
    """The lines of `format_evaluation` on labels."""
    at = "at own thresholds" if result.get("own_thresholds") else "at 0.5"
    lines = [
        f"mean average precision  {_percent(result['mean_average_precision'])}",
        f"F1 {at:<20} {_percent(result['f1'])}",
        f"all labels right        {_percent(result['exact'])}",
        f"binary cross-entropy    {result['binary_cross_entropy']:.4f}",
        "",
    ]
    width = max(len("label"), *map(len, result["labels"]))
    lines.append(
        f"  {'label':<{width}}  images  average precision  F1 {at}  best F1  at"
    )
    for name, each in result["labels"].items():
        if not each["images"]:
            lines.append(f"  {name:<{width}}       0")
            continue
        shown = _percent(each["f1"]).rjust(len(f"F1 {at}"))
        lines.append(
            f"  {name:<{width}}  {each['images']:6}  "
            f"{_percent(each['average_precision']):>17}  {shown}  "
            f"{_percent(each['best_f1'])}  {each['threshold']:.3f}"
        )
    return [*lines, "", "Thresholds chosen on these images suit these images best."]


def _percent(share):
    return "no images" if share is None else f"{100 * share:.2f} %"
