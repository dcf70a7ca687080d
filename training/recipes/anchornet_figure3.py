"""Figures 3 and 5 of the AnchorNet paper: localised patches, and attention maps.

Commands: `keras-attn reproduce anchornet_figure3_generated` and `..._figure5_...`
Cost: one row of table 3, whose run they share: a minute where it is trained.
Expected: wide branches decide images of large objects, narrow ones those of small
objects and of textures; attention falls on the object. The paper prints no numbers.
"""

from keras_attn.training.recipes import anchornet_table3
from keras_attn.training.recipes.anchornet_table4 import localizer_and_full
from keras_attn.training.recipes.experiment import Experiment

FIGURES = {
    "figure3": ("localized_patches", "localised patches of every branch"),
    "figure5": ("attention_maps", "attention maps of all branches"),
}

EXPERIMENTS = tuple(
    Experiment(
        method="anchornet",
        table=table,
        dataset=dataset,
        title=f"AnchorNet, {table[:-1]} {table[-1]}: {title}",
        rows=localizer_and_full(dataset)[:1],
        figure=figure,
        runs_of=f"anchornet_table3_{dataset}",
    )
    for table, (figure, title) in FIGURES.items()
    for dataset in anchornet_table3.ROWS
)
