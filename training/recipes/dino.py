"""DINO on two cores: what its embeddings and its attention are worth.

Commands: `keras-attn reproduce dino_knn_cifar10 [--data PATH]`, `keras-attn reproduce
dino_transfer_cifar10 [--data PATH]` on the same run, and `keras-attn reproduce
dino_attention_generated`.
Cost: some 50 and 5 minutes a seed on two idle cores.
Expected: neighbours far better than those of random initialisation and better than
those of raw pixels; more attention on the object than uniform attention and than maps
of other images have there. No paper trains so little.
"""

from training.dino_recipes import DINO_RECIPES
from training.experiment import Experiment, Row

# Listed in `training.dino_recipes`: they are recipes of another kind.
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
