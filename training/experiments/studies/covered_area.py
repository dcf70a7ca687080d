"""AnchorNet, figure 6: accuracy by the area of the patches, and without that area.

For k = 1, 2, ... patches of an image, by every ranking:

- `covered_K_accuracy`: accuracy of the sum of the first k patches' softmaxes,
- `masked_K_accuracy`: accuracy on the whole image with these patches set to black,
- `area_K`: the share of the image that they cover,

all in per cent. The classifier is the network of row `full`, trained on whole images.
"""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from keras_attn.training.data.load import load_data
from keras_attn.training.experiments.measures import held_out
from keras_attn.training.experiments.protocol import RowValue
from keras_attn.training.experiments.studies._rankings import RANKINGS, select
from keras_attn.training.runs.outputs import outputs_of, softmax
from keras_attn.training.trained import load_trained

# Patches of an image, chosen among all cells.
BUDGETS = 5
SETTINGS = {"max_patches": BUDGETS, "iou_threshold": 0.3, "coverage": 1.0}


def study(runs, sources):
    """The metrics of every ranking; see `Study`."""
    run = runs["anchornet"]
    _, splits = load_data(run.recipe, source=sources["anchornet"])
    images, labels = splits[held_out(splits)]
    localizer = load_trained(run.workdir, "last").model
    classifier = load_trained(runs["full"].workdir, "last").model
    selections, _ = select(localizer, images, **SETTINGS, seed=run.recipe.seed)
    return [
        RowValue(ranking, metric, value)
        for ranking, selection in selections.items()
        for metric, value in curves(classifier, images, labels, selection).items()
    ]


def curves(classifier, images, labels, selection):
    """The metrics of one `Selection`."""
    probabilities = patch_probabilities(classifier, images, selection)
    result = {}
    for k in range(1, selection.boxes.shape[1] + 1):
        union = selection.union(*images.shape[1:3], first=k)
        found = probabilities[:, :k].sum(axis=1).argmax(axis=-1)
        result[f"covered_{k}_accuracy"] = 100 * float(np.mean(found == labels))
        masked = np.where(union[..., None], 0, images).astype("uint8")
        found = outputs_of(classifier, masked)["logits"].argmax(axis=-1)
        result[f"masked_{k}_accuracy"] = 100 * float(np.mean(found == labels))
        result[f"area_{k}"] = 100 * float(union.mean())
    return result


def patch_probabilities(classifier, images, selection):
    """`(N, K, classes)`, 0 where there is no patch; one size at a time."""
    classes = classifier.output["logits"].shape[-1]
    result = np.zeros((*selection.boxes.shape[:2], classes))
    valid = selection.boxes[..., 0] >= 0
    for size in np.unique(selection.sizes):
        chosen = np.argwhere(valid & (selection.sizes == size)[:, None])
        if not len(chosen):
            continue
        corners = selection.boxes[tuple(chosen.T)]
        patches = np.stack(
            [
                images[i, y : y + size, x : x + size]
                for (i, _), (y, x) in zip(chosen, corners[:, :2], strict=True)
            ]
        )
        logits = outputs_of(classifier, patches)["logits"]
        result[tuple(chosen.T)] = softmax(logits)
    return result


def figure(rows):
    """Both halves of figure 6 from the rows of the results file."""
    values = {}
    for row in rows:
        values.setdefault((row["row"], row["metric"]), []).append(row["value"])
    mean = {key: np.mean(parts) for key, parts in values.items()}
    drawn = Figure(figsize=(10.0, 4.4))
    FigureCanvasAgg(drawn)
    for number, (kind, title) in enumerate(
        (("covered", "only the patches"), ("masked", "without the patches")), 1
    ):
        axes = drawn.add_subplot(1, 2, number)
        for ranking in RANKINGS:
            budgets = [
                k for k in range(1, BUDGETS + 1) if (ranking, f"area_{k}") in mean
            ]
            axes.plot(
                [mean[ranking, f"area_{k}"] for k in budgets],
                [mean[ranking, f"{kind}_{k}_accuracy"] for k in budgets],
                "o-",
                markersize=4,
                label=ranking.replace("_", " "),
            )
        axes.set_xlabel("area of the patches, % of the image")
        axes.set_ylabel("accuracy, %")
        axes.set_title(f"classified: {title}", fontsize=10)
        axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    drawn.tight_layout()
    return drawn
