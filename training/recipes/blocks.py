"""Base classes of the methods' options."""

import dataclasses
import itertools
from typing import ClassVar

from keras_attn.pipelines.augment.composition import check_augmentation
from keras_attn.training.recipes.fields import check, choice, fail, number, plain

# A value of `Classifier.initial`: the published weights, to be downloaded.
PUBLISHED = "imagenet"


@dataclasses.dataclass(frozen=True)
class Options:
    """The fields of a recipe that belong to its method.

    A method's options have `backbone` and `row`, by which recipes are listed, as fields
    or as properties.
    """

    # Weights that the training starts with; empty: random ones.
    initial: ClassVar[str] = ""

    def __post_init__(self):
        check(self)

    def check(self, recipe):
        """Raises ValueError where the options do not fit the recipe's other fields."""

    def untrained(self):
        """The options of the same network with random initial weights."""
        return self


@dataclasses.dataclass(frozen=True)
class Classifier(Options):
    """Options of methods that train a classifier with labels."""

    backbone: str = plain("rn26", "Name of the backbone.")
    row: str = plain(
        "baseline", "Row of the paper's table: what is added to the backbone."
    )
    initial: str = plain(
        "",
        "Folder of a run, or model file, whose weights the training starts with; "
        "`imagenet`: the published ones of `keras.applications`, or a local copy of "
        "their file (`.h5`); empty: random ones.",
    )
    optimizer: str = choice(
        "adam", "Optimizer; `sgd` has a momentum of 0.9.", "adam", "adamw", "sgd"
    )
    schedule: str = choice(
        "steps",
        "`steps`: the learning rate drops at `decay_at`; `cosine`: it falls to zero.",
        "steps",
        "cosine",
    )
    decay_factor: float = number(
        0.1, "Factor on the learning rate at each of `decay_at`.", above=0
    )
    decay_at: tuple[float, ...] = number(
        (0.5, 0.75),
        "Fractions of the training at which the learning rate drops.",
        above=0,
        below=1,
    )
    weight_decay_mode: str = choice(
        "l2", "`l2`, a penalty on kernels, or `decoupled`.", "l2", "decoupled"
    )
    augmentation: str = plain(
        "translate_flip",
        "Name of an augmentation or a composition such as "
        "`resize(36)|random_crop(32)|flip`, see docs/augmentation.md.",
    )

    def __post_init__(self):
        super().__post_init__()
        if any(not low < high for low, high in itertools.pairwise(self.decay_at)):
            fail(self, "decay_at", "increasing fractions in (0, 1)")

    def check(self, recipe):
        check_augmentation(self.augmentation, (recipe.image_size, recipe.image_size))

    @property
    def published_weights(self):
        """`imagenet`, or the path of a file as published; `None` without them."""
        named = self.initial == PUBLISHED or self.initial.endswith(".h5")
        return self.initial if named else None

    def untrained(self):
        return dataclasses.replace(self, initial="")
