"""Accuracy by super class, for data sets whose classes have them.

Metrics, in per cent: `accuracy_NAME` for every super class, and `accuracy_Total` of
all images. The images held out are classified by each row's last model.
"""

import numpy as np

from keras_attn.pipelines.sources.splits import split_indices
from keras_attn.training.data.load import load_data
from keras_attn.training.experiments.measures import held_out
from keras_attn.training.experiments.protocol import RowValue
from keras_attn.training.runs.outputs import outputs_of
from keras_attn.training.trained import load_trained


def study(runs, sources):
    """The accuracies of every row; see `Study`."""
    lines = []
    for row, run in runs.items():
        source = sources[row]
        if "super_class" not in source.annotations:
            raise ValueError(
                "Expected a data set with super classes, such as `inaturalist2017`. "
                f"Received: {source.name}"
            )
        _, splits = load_data(run.recipe, source=source)
        name = held_out(splits)
        images, labels = splits[name]
        indices = split_indices(source, run.recipe.split, run.recipe.split_seed)
        groups = np.asarray(source.annotations["super_class"])[indices[name]]
        model = load_trained(run.workdir, "last").model
        classes = outputs_of(model, images)["logits"].argmax(axis=-1)
        found = accuracies(classes == labels, groups)
        lines += [
            RowValue(row, f"accuracy_{group}", value) for group, value in found.items()
        ]
    return lines


def accuracies(correct, groups):
    """Dict from a group's name to its accuracy in per cent, `Total` at the end."""
    by_group = {
        str(group): 100 * float(correct[groups == group].mean())
        for group in np.unique(groups)
    }
    return {**by_group, "Total": 100 * float(correct.mean())}
