"""Figure 6 of the AnchorNet paper: accuracy by covered and by masked area.

Command: `keras-attn reproduce anchornet_figure6_tf_flowers [--data PATH]`
Cost: two rows of table 3, whose runs it shares: minutes where they are trained.
Expected: AnchorNet's patches give the highest accuracy for the area that they cover,
and hiding them the lowest. The paper's other localisers, Saccader and BagNet, are
left out: they would have to be trained. In their place are rankings that need no
training.
"""

from keras_attn.training.recipes import anchornet_table3
from keras_attn.training.recipes.anchornet_table4 import localizer_and_full
from keras_attn.training.recipes.experiment import Experiment

EXPERIMENTS = tuple(
    Experiment(
        method="anchornet",
        table="figure6",
        dataset=dataset,
        title="AnchorNet, figure 6: accuracy by covered and by masked area",
        rows=localizer_and_full(dataset),
        study="covered_area",
        runs_of=f"anchornet_table3_{dataset}",
    )
    for dataset in anchornet_table3.ROWS
)
