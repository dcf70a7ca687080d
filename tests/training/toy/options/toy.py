"""Options of the toy method."""

import dataclasses

from keras_attn.training.recipes.blocks import Classifier
from keras_attn.training.recipes.fields import number


@dataclasses.dataclass(frozen=True)
class ToyOptions(Classifier):
    strength: float = number(0.5, "Weight of the loss.", above=0)


OPTIONS = ToyOptions
