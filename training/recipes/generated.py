"""The generated data set, the default of `keras-attn train` and of `./do demo`.

Command: `keras-attn train generated_rn26_class_embedding`
"""

from keras_attn.training.recipes.experiment import Experiment, Row
from keras_attn.training.recipes.schema import Recipe

RECIPES = tuple(
    Recipe(
        name=f"generated_rn26_{row}",
        dataset="generated",
        split="official",
        backbone="rn26",
        row=row,
        epochs=10,
        learning_rate=2e-3,
    )
    for row in ("class_embedding", "baseline", "aux")
)

# Not in the paper: the same comparison on the data set that needs no download.
EXPERIMENTS = (
    Experiment(
        method="class_embedding",
        table="table1",
        dataset="generated",
        title="Class embedding, rows of table 1 on the generated data set",
        rows=tuple(Row(f"rn26_{recipe.row}", recipe) for recipe in RECIPES),
    ),
)
