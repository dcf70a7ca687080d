"""DINO on two cores: what its embeddings and its attention are worth.

Commands: `keras-attn reproduce dino_knn_cifar10 [--data PATH]`, `keras-attn reproduce
dino_transfer_cifar10 [--data PATH]` on the same run, and `keras-attn reproduce
dino_attention_generated`.
Cost: some 50 and 5 minutes a seed on two idle cores.
Expected: neighbours far better than those of random initialisation and better than
those of raw pixels; more attention on the object than uniform attention and than maps
of other images have there. No paper trains so little.
"""

from keras_attn.training.recipes.dino_schema import DinoRecipe
from keras_attn.training.recipes.experiment import Experiment, Row

# Few steps need a teacher that follows soon. It scores more sharply than the published
# one: in pilots with a temperature of 0.04 all scores became more uniform instead.
MINI = {
    "size": "mini",
    "drop_path": 0.0,
    "units": 1024,
    "hidden_units": 512,
    "bottleneck_units": 128,
    "local_views": 4,
    "smallest_local": 0.1,
    "teacher_momentum": 0.99,
    "teacher_temperature": 0.025,
    "first_teacher_temperature": 0.025,
    "learning_rate": 4e-3,
    "warmup_epochs": 0.2,
    "resting_epochs": 0.1,
    "final_weight_decay": 0.04,
    "batch_size": 64,
    "deterministic": False,
}

DINO_RECIPES = {
    recipe.name: recipe
    for recipe in (
        DinoRecipe(name="imagenet_vit_small_16_dino", dataset="folder", batch_size=512),
        # For a GPU: on two cores some 30 minutes an epoch. The teacher's momentum goes
        # with the batch.
        DinoRecipe(
            name="cifar10_vit_tiny_4_dino",
            dataset="cifar10",
            split="45k_5k",
            image_size=32,
            size="tiny",
            patch_size=4,
            units=4096,
            hidden_units=512,
            global_size=32,
            local_size=16,
            local_views=4,
            teacher_momentum=0.9995,
        ),
        # Some 0.3 s of one core's time a step, 703 steps an epoch: two minutes an epoch
        # on two idle cores.
        DinoRecipe(
            name="cifar10_vit_mini_4_dino",
            dataset="cifar10",
            split="45k_5k",
            image_size=32,
            patch_size=4,
            # Crops are smaller than images; they need no enlarging.
            global_size=24,
            local_size=12,
            epochs=24,
            **MINI,
        ),
        # Some five minutes. Attention falls on the object where nothing else tells the
        # images apart: every view is grey, for each background has colours of its own;
        # views show the whole object or most of it; and one block cannot gather what it
        # knows in the cells of the background before the class token looks. What each
        # of these changed is in docs/masks.md.
        DinoRecipe(
            name="generated_vit_mini_8_dino",
            image_size=64,
            difficulty=0.25,
            blocks=1,
            patch_size=8,
            global_size=48,
            local_size=24,
            judged_images=500,
            smallest_global=0.6,
            greatest_local=0.8,
            grey=1.0,
            epochs=28,
            **{
                **MINI,
                "smallest_local": 0.3,
                "warmup_epochs": 1.0,
                "resting_epochs": 0.5,
            },
        ),
    )
}

# Listed in `keras_attn.training.recipes.dino`: they are recipes of another kind.
RECIPES = ()

EXPERIMENTS = (
    Experiment(
        method="dino",
        table="knn",
        dataset="cifar10",
        title="DINO: accuracy of the 20 nearest neighbours",
        rows=(Row("dino", DINO_RECIPES["cifar10_vit_mini_4_dino"]),),
        study="neighbours",
    ),
    Experiment(
        method="dino",
        table="transfer",
        dataset="cifar10",
        title="DINO on CIFAR-10: attention on the object, generated set",
        rows=(Row("dino", DINO_RECIPES["cifar10_vit_mini_4_dino"]),),
        study="attention_on_generated",
        runs_of="dino_knn_cifar10",
    ),
    Experiment(
        method="dino",
        table="attention",
        dataset="generated",
        title="DINO: attention of the class token on the object",
        rows=(Row("dino", DINO_RECIPES["generated_vit_mini_8_dino"]),),
        study="attention_on_object",
    ),
)
