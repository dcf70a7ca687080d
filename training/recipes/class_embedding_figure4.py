"""Figure 4 of the class-embedding paper: the weight lambda of the patch loss.

Command: `keras-attn reproduce class_embedding_figure4_cifar10 --data PATH`
Cost: 200 epochs of 32,500 images per row and seed, eleven rows.
Expected: small weights degrade, 0.5 is best; the paper prints no numbers.
"""

from keras_attn.training.recipes.experiment import Experiment, Row
from keras_attn.training.recipes.schema import Recipe

WEIGHTS = tuple(tenth / 10 for tenth in range(11))

RECIPES = tuple(
    Recipe(
        name=f"cifar10_rn26_patch_loss_weight_{weight:.1f}",
        dataset="cifar10",
        split="pooled_65_15_20",
        backbone="rn26",
        row="class_embedding",
        patch_loss_weight=weight,
    )
    for weight in WEIGHTS
)

EXPERIMENTS = (
    Experiment(
        method="class_embedding",
        table="figure4",
        dataset="cifar10",
        title="Class embedding, figure 4: weight of the patch loss",
        rows=tuple(
            Row(f"{recipe.options.patch_loss_weight:.1f}", recipe) for recipe in RECIPES
        ),
    ),
)
