"""Localised patches on the object and its parts, where its box is known.

Command: `keras-attn reproduce anchornet_object_hits_generated`
Cost: one row of table 3, whose run it shares: a minute where it is trained.
Expected: more of the patches and of the parts on the object than by chance and in the
centre. Not in the paper.
"""

from keras_attn.training.recipes.anchornet_table4 import localizer_and_full
from keras_attn.training.recipes.experiment import Experiment

EXPERIMENTS = (
    Experiment(
        method="anchornet",
        table="object_hits",
        dataset="generated",
        title="AnchorNet: patches on the object and its parts",
        rows=localizer_and_full("generated")[:1],
        study="object_hits",
        runs_of="anchornet_table3_generated",
    ),
)
