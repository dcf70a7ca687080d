"""Figure 3 of the class-embedding paper: soft maximisers in place of BN-ReLU.

Command: `keras-attn reproduce class_embedding_figure3_cifar10 --data PATH`
Cost: 200 epochs of 32,500 images per row and seed; the perturbed maximiser draws 600
samples and is about two orders of magnitude slower than the others.
Expected: the three on par; the paper prints no numbers. As in the paper, the
perturbed maximiser is run at batch 8 only.
"""

from keras_attn.training.recipes.experiment import Experiment, Row
from keras_attn.training.recipes.schema import Recipe

VARIANTS = (
    ("bn_relu", 8),
    ("margin_softmax", 8),
    ("perturbed_argmax", 8),
    ("bn_relu", 32),
    ("margin_softmax", 32),
)

RECIPES = tuple(
    Recipe(
        name=f"cifar10_resnet20_{activation}_batch{batch_size}",
        dataset="cifar10",
        split="pooled_65_15_20",
        backbone="resnet20",
        activation=activation,
        batch_size=batch_size,
    )
    for activation, batch_size in VARIANTS
)

EXPERIMENTS = (
    Experiment(
        method="class_embedding",
        table="figure3",
        dataset="cifar10",
        title="Class embedding, figure 3: BN-ReLU and soft maximisers",
        rows=tuple(
            Row(f"{recipe.options.activation}_batch{recipe.batch_size}", recipe)
            for recipe in RECIPES
        ),
    ),
)
