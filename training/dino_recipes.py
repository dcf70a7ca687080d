"""Recipes of self-supervised training by name.

`imagenet_vit_small_16_dino` is the published one, on a folder with the images of
ImageNet: its authors report 1.75 days on 8 GPUs and 69.3 % of the validation images by
their nearest neighbours. The others are for two CPU cores.
"""

from training.dino_recipe import DinoRecipe

# For 2 views of 64 patches and 4 of 16. The teacher's momentum goes with the batch.
SMALL = {"size": "tiny", "units": 4096, "hidden_units": 512, "local_views": 4}

DINO_RECIPES = {
    recipe.name: recipe
    for recipe in (
        DinoRecipe(name="imagenet_vit_small_16_dino", dataset="folder", batch_size=512),
        # Some 30 minutes an epoch on two cores, a third of that with --set blocks=4.
        DinoRecipe(
            name="cifar10_vit_tiny_4_dino",
            dataset="cifar10",
            split="45k_5k",
            image_size=32,
            patch_size=4,
            global_size=32,
            local_size=16,
            teacher_momentum=0.9995,
            **SMALL,
        ),
        # Some 3 minutes an epoch on two cores.
        DinoRecipe(
            name="generated_vit_tiny_8_dino",
            image_size=64,
            patch_size=8,
            global_size=64,
            local_size=32,
            batch_size=64,
            epochs=50,
            warmup_epochs=5,
            learning_rate=2e-3,
            teacher_momentum=0.99,
            **SMALL,
        ),
    )
}
