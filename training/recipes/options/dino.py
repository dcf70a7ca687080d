"""Options of DINO; the published values of ViT-S/16 are the defaults."""

import dataclasses

from keras_attn.training.recipes.blocks import Options
from keras_attn.training.recipes.fields import choice, fail, number

SHARE = {"at_least": 0, "at_most": 1}


@dataclasses.dataclass(frozen=True)
class DinoOptions(Options):
    """A vision transformer that learns without labels, which serve validation alone.

    Learning rates are for 256 images in a step and grow with their number.
    """

    size: str = choice(
        "small", "Size of the transformer.", "mini", "tiny", "small", "base"
    )
    blocks: int = number(
        0, "Blocks of the transformer; 0: the number of its size.", at_least=0
    )
    patch_size: int = number(16, "Side of the transformer's patches.", above=0)
    drop_path: float = number(
        0.1, "Greatest drop rate of the student's branches.", at_least=0
    )
    units: int = number(65536, "Outputs of the heads, see `DinoHead`.", above=0)
    hidden_units: int = number(2048, "Hidden units of the heads.", above=0)
    bottleneck_units: int = number(256, "Width of the heads' bottleneck.", above=0)
    global_size: int = number(224, "Side of the global views.", above=0)
    local_size: int = number(96, "Side of the local views.", above=0)
    local_views: int = number(8, "Local views of an image.", at_least=0)
    smallest_global: float = number(
        0.4, "Least share of the area that a global view covers.", above=0, below=1
    )
    smallest_local: float = number(
        0.05, "Least share of the area that a local view covers.", above=0
    )
    greatest_local: float = number(
        0.4, "Greatest share of the area that a local view covers.", above=0, below=1
    )
    jitter: float = number(0.8, "Share of the views with changed colours.", **SHARE)
    grey: float = number(0.2, "Share of grey views.", **SHARE)
    teacher_momentum: float = number(
        0.996,
        "Momentum of the teacher at the start; it rises to 1.",
        at_least=0,
        below=1,
    )
    teacher_temperature: float = number(
        0.04, "Temperature of the teacher after `teacher_warmup_epochs`.", above=0
    )
    first_teacher_temperature: float = number(
        0.04, "Temperature of the teacher at the start.", above=0
    )
    teacher_warmup_epochs: int = number(
        0, "Epochs in which the teacher's temperature changes.", at_least=0
    )
    final_learning_rate: float = number(
        1e-6, "Learning rate at the end of the training.", at_least=0
    )
    warmup_epochs: float = number(
        10.0, "Epochs in which the learning rate rises to its value.", at_least=0
    )
    final_weight_decay: float = number(
        0.4, "Coefficient of the decay at the end of the training.", at_least=0
    )
    clipnorm: float = number(3.0, "Largest norm of a variable's gradient.", above=0)
    resting_epochs: float = number(
        1.0, "Epochs in which the heads' last layer rests.", at_least=0
    )
    neighbours: int = number(
        20, "Nearest neighbours that vote in the validation.", above=0
    )
    judged_images: int = number(
        5000,
        "Most images of the training and of the validation set in the validation.",
        above=0,
    )

    def __post_init__(self):
        super().__post_init__()
        if not self.smallest_local < self.greatest_local:
            fail(self, "smallest_local", "less than greatest_local")

    def check(self, recipe):
        sizes = [self.global_size, *[self.local_size] * (self.local_views > 0)]
        if any(size % self.patch_size for size in [*sizes, recipe.image_size]):
            fail(
                self,
                "patch_size",
                "a divisor of image_size, global_size and local_size",
            )
        if self.warmup_epochs >= recipe.epochs:
            fail(self, "warmup_epochs", f"less than epochs={recipe.epochs}")

    @property
    def backbone(self):
        return f"vit_{self.size}_{self.patch_size}"

    @property
    def row(self):
        return "dino"


OPTIONS = DinoOptions
