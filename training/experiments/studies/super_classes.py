"""Accuracy by super class, for data sets whose classes have them.

Metrics, in per cent: `accuracy_NAME` for every super class, and `accuracy_Total` of
all images. The images held out are classified by each row's last model.
"""

import numpy as np

from keras_attn.training.experiments.measures import held_out
from keras_attn.training.experiments.protocol import RowValue
from keras_attn.training.experiments.studies._annotations import annotated
from keras_attn.training.runs.outputs import outputs_of
from keras_attn.training.trained import load_trained


def study(runs, sources):
    """The accuracies of every row; see `Study`."""
    for row, run in runs.items():
        _, source, images, indices = annotated(run, sources[row], ["super_class"])
        chosen = indices[held_out(indices)]
        groups = np.asarray(source.annotations["super_class"])[chosen]
        model = load_trained(run.workdir, "last").model
        classes = outputs_of(model, images[chosen])["logits"].argmax(axis=-1)
        found = accuracies(classes == source.labels[chosen], groups)
        for group, value in found.items():
            yield RowValue(row, f"accuracy_{group}", value)


def accuracies(correct, groups):
    """Dict from a group's name to its accuracy in per cent, `Total` at the end."""
    by_group = {
        str(group): 100 * float(correct[groups == group].mean())
        for group in np.unique(groups)
    }
    return {**by_group, "Total": 100 * float(correct.mean())}
