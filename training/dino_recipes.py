"""Recipes of self-supervised training by name.

`imagenet_vit_small_16_dino` is the published one, on a folder with the images of
ImageNet: its authors report 1.75 days on 8 GPUs and 69.3 % of the validation images by
their nearest neighbours. The others are for two CPU cores.
"""

from training.dino_recipe import DinoRecipe

SMALL = {
    "size": "tiny",
    "units": 4096,
    "hidden_units": 512,
    "local_views": 4,
    "teacher_momentum": 0.9995,
    "batch_size": 256,
    "warmup_epochs": 5,
}

DINO_RECIPES = {
    recipe.name: recipe
    for recipe in (
        DinoRecipe(name="imagenet_vit_small_16_dino", dataset="folder", batch_size=512),
        DinoRecipe(
            name="cifar10_vit_tiny_4_dino",
            dataset="cifar10",
            split="45k_5k",
            image_size=32,
            patch_size=4,
            global_size=32,
            local_size=16,
            epochs=100,
            **SMALL,
        ),
        DinoRecipe(
            name="generated_vit_tiny_8_dino",
            image_size=64,
            patch_size=8,
            global_size=64,
            local_size=32,
            epochs=50,
            **SMALL,
        ),
    )
}
