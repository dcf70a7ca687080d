"""Volumetric Transformer Networks, table 5: errors of localisation by Grad-CAM.

The Grad-CAM of the true class on the map before the warp, through which the gradients
flow back; the box of its largest region above 15 % of its maximum; and how often that
box and the predicted class are wrong, on the held-out images whose box is known (see
`keras_attn.metrics.localization`). Metrics, in per cent:

- `top1_error`, `top5_error`, `ground_truth_known_error`: errors of the localisation,
- `best_top1_error`, ...: the same at `best_threshold`, the threshold (per cent of the
  maximum) of a sweep with the lowest `ground_truth_known` error. As is usual it is
  chosen on the judged images themselves, so this flatters,
- `top1_classification_error`, `top5_classification_error`: errors of the class alone,
  which the errors of the localisation cannot fall below.
"""

import numpy as np
from keras import ops

from keras_attn.explain.grad_cam import grad_cam
from keras_attn.metrics.localization import localization_errors
from keras_attn.ops.boxes import heat_map_box
from keras_attn.training.experiments.measures import held_out
from keras_attn.training.experiments.protocol import RowValue
from keras_attn.training.experiments.studies._annotations import annotated
from keras_attn.training.runs.outputs import outputs_of, with_outputs
from keras_attn.training.trained import load_trained

FEATURES = "features"
THRESHOLD = 0.15
SWEEP = tuple(step / 20 for step in range(1, 20))
TOP = 5
BATCH = 16


def study(runs, sources):
    """The errors of every run's model of the last epoch; see `Study`."""
    for label, run in runs.items():
        _, source, images, indices = annotated(run, sources[label], ["box"])
        chosen = indices[held_out(indices)]
        chosen = chosen[source.annotations["box"][chosen, 0] >= 0]
        metrics = errors(
            load_trained(run.workdir, "last").model,
            images[chosen],
            source.labels[chosen],
            source.annotations["box"][chosen],
        )
        yield from (RowValue(label, *each) for each in metrics.items())


def errors(model, images, labels, true_boxes):
    """The metrics of one model; every image has a true box."""
    predictions, boxes = predict(model, images, labels)
    at = {
        threshold: localization_errors(found, predictions, labels, true_boxes, top=TOP)
        for threshold, found in boxes.items()
    }
    best = min(SWEEP, key=lambda threshold: at[threshold]["ground_truth_known"])
    named = predictions == labels[:, None]
    result = {f"{name}_error": value for name, value in at[THRESHOLD].items()}
    result |= {f"best_{name}_error": value for name, value in at[best].items()}
    result |= {
        "best_threshold": best,
        "top1_classification_error": 1 - named[:, 0].mean(),
        f"top{TOP}_classification_error": 1 - named.any(axis=1).mean(),
    }
    return {name: 100 * float(value) for name, value in result.items()}


def predict(model, images, labels):
    """Predicted classes of images, and boxes around their true class.

    Returns:
        `(predictions, boxes)`: the five most probable classes, `(N, 5)`, and a dict
        from thresholds to boxes `(N, 4)`.
    """
    classifier = with_outputs(model, ["logits"])
    thresholds = sorted({THRESHOLD, *SWEEP})
    predictions, boxes = [], {threshold: [] for threshold in thresholds}
    for start in range(0, len(labels), BATCH):
        part = slice(start, start + BATCH)
        pixels = np.asarray(images[part])
        logits = outputs_of(classifier, pixels, BATCH)["logits"]
        order = np.argsort(-logits, axis=1, kind="stable")
        predictions.append(order[:, :TOP])
        maps = grad_cam(model, pixels, FEATURES, labels[part])
        for threshold in thresholds:
            found = ops.convert_to_numpy(heat_map_box(maps, threshold))
            boxes[threshold].append(found)
    return np.concatenate(predictions), {
        threshold: np.concatenate(found) for threshold, found in boxes.items()
    }
