"""Table 4 of the AnchorNet paper: the best patch against the rescaled image.

Command: `keras-attn reproduce anchornet_table4_tf_flowers [--data PATH]`
Cost: two rows of table 3, whose runs it shares: minutes where they are trained.
Expected: the patch is better at all three sizes. The paper on ImageNet, ResNet-50:
38.2 against 15.6 % at 63, 54.9 against 37.4 % at 95, 60.2 against 45.1 % at 111.
"""

from keras_attn.training.recipes import anchornet_table3
from keras_attn.training.recipes.experiment import Experiment, Row

PAPER_VALUES = (
    (("rescaled", "accuracy_63"), 15.6),
    (("localized", "accuracy_63"), 38.2),
    (("rescaled", "accuracy_95"), 37.4),
    (("localized", "accuracy_95"), 54.9),
    (("rescaled", "accuracy_111"), 45.1),
    (("localized", "accuracy_111"), 60.2),
)


def localizer_and_full(dataset):
    """The rows of table 3 that studies of a trained localiser need, by one label."""
    by_label = {row.label: row for row in anchornet_table3.ROWS[dataset]}
    full = "resnet50_full" if dataset == "imagenet2012" else "full"
    return tuple(
        Row(label, by_label[source].recipe, runs_of=source)
        for label, source in (("anchornet", "anchornet"), ("full", full))
    )


EXPERIMENTS = tuple(
    Experiment(
        method="anchornet",
        table="table4",
        dataset=dataset,
        title="AnchorNet, table 4: one localised patch, or the rescaled image",
        rows=localizer_and_full(dataset),
        study="rescaling",
        paper_values=PAPER_VALUES if dataset == "imagenet2012" else (),
        runs_of=f"anchornet_table3_{dataset}",
    )
    for dataset in anchornet_table3.ROWS
)
