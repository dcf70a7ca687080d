"""Do the fields move an object's parts to where its class has them?

Command: `keras-attn reproduce volumetric_transformer_alignment_generated`
Cost: the runs of table 1, which it shares: seconds where they are trained.
Expected: nothing is known before; the claim is that of the paper's section 3.4, on
data whose parts are known.
"""

from keras_attn.training.recipes.experiment import Experiment
from keras_attn.training.recipes.volumetric_transformer_table1 import SMALL_ROWS
from keras_attn.training.recipes.volumetric_transformer_table5 import rows

# Deformable convolutions have offsets of their own, no field of the map.
COMPARED = tuple(row for row in SMALL_ROWS if row != "deformable_convolution")

EXPERIMENTS = (
    Experiment(
        method="volumetric_transformer",
        table="alignment",
        dataset="generated",
        title="Distance of known parts in a class, before and after the warp",
        rows=rows("generated", COMPARED),
        study="part_alignment",
        runs_of="volumetric_transformer_table1_generated",
    ),
)
