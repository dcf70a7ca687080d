"""The part of an evaluation report on labels that do not exclude each other."""

from markupsafe import Markup

from keras_attn.training.evaluation import report_charts
from keras_attn.training.evaluation.labels import curve, label_calibration
from keras_attn.training.runs.outputs import sigmoid

# Labels whose curves are drawn, the most frequent ones: as many as colours.
DRAWN = 10


def judged_labels(found, result, logits):
    """Everything that is counted on the images.

    Args:
        found: `EvaluationData`.
        result: Dict of `evaluate`.
        logits: `(examples, labels)`.
    """
    names = found.trained.class_names
    measured, errors = label_calibration(logits, found.labels)
    scores = [result["labels"][name] for name in names]
    there = [label for label, each in enumerate(scores) if each["images"]]
    there.sort(key=lambda label: -scores[label]["images"])
    probabilities, curves = sigmoid(logits), {}
    for label in there[:DRAWN]:
        _, precision, recall = curve(probabilities[:, label], found.labels[:, label])
        curves[names[label]] = recall, precision
    thresholds = found.trained.thresholds.tolist()
    chart = ("probability", "share with the label", "pairs")
    return {
        "class_names": names,
        "right": round(result["exact"] * result["examples"]),
        "calibration": measured,
        "bins": measured.filled,
        "reliability_chart": Markup(report_charts.reliability(measured, chart)),
        "curves_chart": Markup(report_charts.precision_recall(curves))
        if curves
        else None,
        "drawn": len(curves),
        "labels": list(zip(names, scores, thresholds, errors, strict=True)),
    }
