"""The true places of the objects as maps: an upper bound of what maps are worth.

Command: `keras-attn reproduce attention_masked_residual_true_maps_generated --seeds 3
--set map_model=RUN`, RUN being a run of `keras-attn train generated_vit_mini_8_dino`,
which row `a1_attention` alone reads.
Cost: about a minute per row and seed on two cores.
Expected: none is printed. If maps help at all, `a1_true_masks` is above `a0`,
`constant` and `shuffled_true_masks`; if only bad maps are to blame, it is also above
`a1_attention`. A mask shows an object's outline, and so its class, where a box,
`a1_true_boxes`, shows only the place: that row is worth what the place is.
"""

from keras_attn.training.recipes.attention_masked_residual_table3 import GENERATED
from keras_attn.training.recipes.experiment import Experiment, Row
from keras_attn.training.recipes.schema import Recipe

# Epochs were cut for the time on two cores, before any row was compared with another.
VALUES = {**GENERATED, "epochs": 8}
TRUE = {"mask_strength": 1.0, "map_mode": "true_mask"}
ROWS = {
    "a0": {"mask_strength": 0.0},
    "constant": {"mask_strength": 1.0, "mask_control": "constant"},
    "a1_attention": {"mask_strength": 1.0},
    "a1_true_masks": TRUE,
    "a1_true_boxes": {**TRUE, "map_mode": "true_box"},
    "branch_true_masks": {**TRUE, "mask_target": "branch"},
    "shuffled_true_masks": {**TRUE, "mask_control": "shuffled"},
}

EXPERIMENTS = (
    Experiment(
        method="attention_masked_residual",
        table="true_maps",
        dataset="generated",
        title="Attention-masked residuals: true objects as maps",
        rows=tuple(
            Row(
                label,
                Recipe(
                    **{**VALUES, **changes, "row": label},
                    name=f"generated_{VALUES['backbone']}_true_maps_{label}",
                ),
            )
            for label, changes in ROWS.items()
        ),
    ),
)

RECIPES = tuple(row.recipe for row in EXPERIMENTS[0].rows)
