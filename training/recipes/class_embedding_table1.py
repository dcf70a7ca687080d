"""Table 1 of the class-embedding paper: ten networks on three data sets.

Command: `keras-attn reproduce class_embedding_table1_cifar10 --data PATH`
Cost: 200 epochs of 32,500 (CIFAR) to 45,000 images per row and seed; hours on a GPU.
Expected: `PAPER_VALUES`, top-1 accuracy in per cent.
"""

from keras_attn.training.recipes.experiment import Experiment, Row
from keras_attn.training.recipes.schema import Recipe

# Backbone and row -> accuracies on the data sets, in the order of DATASETS.
PAPER_VALUES = {
    ("rn26", "baseline"): (89.52, 65.94, 60.43),
    ("rn26", "aux"): (90.57, 66.21, 60.70),
    ("rn26", "class_embedding"): (91.06, 66.78, 61.23),
    ("rn38", "baseline"): (90.78, 68.15, 60.72),
    ("rn38", "class_embedding"): (91.36, 69.01, 63.83),
    ("wrn16", "baseline"): (90.52, 67.11, 60.73),
    ("wrn16", "class_embedding"): (91.10, 67.36, 62.92),
    ("dn100", "baseline"): (92.62, 71.65, 65.03),
    ("dn100", "class_embedding"): (92.92, 71.25, 68.86),
    ("dn100", "class_embedding_concat"): (92.71, 72.14, 68.93),
}

# The paper splits all images of a data set 65/15/20.
DATASETS = {"cifar10": 32, "cifar100": 32, "miniimagenet": 84}

RECIPES = tuple(
    Recipe(
        name=f"{dataset}_{backbone}_{row}",
        dataset=dataset,
        split="pooled_65_15_20",
        image_size=image_size,
        backbone=backbone,
        row=row,
    )
    for dataset, image_size in DATASETS.items()
    for backbone, row in PAPER_VALUES
)

EXPERIMENTS = tuple(
    Experiment(
        method="class_embedding",
        table="table1",
        dataset=dataset,
        title="Class embedding, table 1: top-1 accuracy",
        rows=tuple(
            Row(
                f"{recipe.backbone}_{recipe.row}",
                recipe,
                PAPER_VALUES[recipe.backbone, recipe.row][column],
            )
            for recipe in RECIPES
            if recipe.dataset == dataset
        ),
    )
    for column, dataset in enumerate(DATASETS)
)
