"""Options of class embedding."""

import dataclasses

from keras_attn.training.recipes.blocks import Classifier
from keras_attn.training.recipes.fields import number, plain


@dataclasses.dataclass(frozen=True)
class ClassEmbeddingOptions(Classifier):
    """A backbone of `keras_attn.models.BACKBONES` with a row of the paper's table."""

    activation: str = plain(
        "bn_relu", "Layers behind the 3x3 convolutions of bottleneck blocks."
    )
    patch_loss_weight: float = number(
        0.5,
        "The paper's lambda; unused without patch logits.",
        at_least=0,
        at_most=1,
    )


OPTIONS = ClassEmbeddingOptions
