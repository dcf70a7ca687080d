"""Maps of chosen heads beside those of all heads, and beside controls.

Commands: `keras-attn reproduce attention_masked_residual_heads_native_cifar10 --data
PATH --seeds 3 --set map_model=RUN`, RUN being a run of `keras-attn train
cifar10_vit_mini_4_dino`, and `..._heads_generated` with one of
`generated_vit_mini_8_dino`.
Cost: as table 3's, some minutes per row and seed on two cores.
Expected: if only the mean over the heads keeps the maps from helping, `a1_objects`, the
heads that Object-DINO chooses, is further above `constant` and `shuffled_objects` than
`a1` is above `constant` and `shuffled`.
"""

from keras_attn.training.recipes.attention_masked_residual_table3 import NATIVE
from keras_attn.training.recipes.attention_masked_residual_true_maps import (
    VALUES as GENERATED,
)
from keras_attn.training.recipes.experiment import Experiment, Row
from keras_attn.training.recipes.schema import Recipe

CHOSEN = {"map_heads": "objects"}
ROWS = {
    "constant": {"mask_control": "constant"},
    "shuffled": {"mask_control": "shuffled"},
    "a1": {},
    "shuffled_objects": {**CHOSEN, "mask_control": "shuffled"},
    "a1_objects": CHOSEN,
}
TABLES = {"heads_native": NATIVE, "heads": GENERATED}

EXPERIMENTS = tuple(
    Experiment(
        method="attention_masked_residual",
        table=table,
        dataset=values["dataset"],
        title="Attention-masked residuals: maps of chosen heads",
        rows=tuple(
            Row(
                label,
                Recipe(
                    **{**values, "mask_strength": 1.0, **changes, "row": label},
                    name=f"{values['dataset']}_{values['backbone']}_{table}_{label}",
                ),
            )
            for label, changes in ROWS.items()
        ),
    )
    for table, values in TABLES.items()
)

RECIPES = tuple(row.recipe for each in EXPERIMENTS for row in each.rows)
