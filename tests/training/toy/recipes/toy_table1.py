"""A table of the toy method."""

from keras_attn.training.recipes.experiment import Experiment, Row
from keras_attn.training.recipes.schema import Recipe

RECIPES = tuple(
    Recipe(
        name=f"generated_cells_{row}",
        method="toy",
        backbone="cells",
        row=row,
        examples=130,
        batch_size=40,
        epochs=1,
        strength=strength,
        # Determinism cannot be switched off again, so it would stay for other tests.
        deterministic=False,
    )
    for row, strength in (("weak", 0.25), ("strong", 2.0))
)

EXPERIMENTS = (
    Experiment(
        method="toy",
        table="table1",
        dataset="generated",
        title="Toy, table 1",
        rows=tuple(Row(recipe.row, recipe) for recipe in RECIPES),
    ),
)
