"""Options of Volumetric Transformer Networks."""

import dataclasses

from keras_attn.training.recipes.blocks import Classifier
from keras_attn.training.recipes.fields import fail, number, plain


@dataclasses.dataclass(frozen=True)
class VolumetricTransformerOptions(Classifier):
    """A backbone whose last map is warped, and what it is compared with."""

    deformation: str = plain(
        "none",
        "Layer that warps the last map: `none`, `volumetric_transformer` or one of its "
        "comparators, see `keras_attn.models.warped_classifier`.",
    )
    pooling: str = plain(
        "average",
        "Layer that makes a descriptor of the last map, see "
        "`keras_attn.models.descriptors`.",
    )
    reduced_channels: int = number(
        256, "Channels of the map that a second-order pooling takes.", above=0
    )
    groups: int = number(
        32,
        "Groups of channels that are warped together; 0: each on its own.",
        at_least=0,
    )
    window: int = number(11, "Side of the window of warping candidates, odd.", above=0)
    temperature: float = number(
        10.0, "Factor in the softmax over candidates, the paper's beta.", above=0
    )
    mix_channels: bool = plain(True, "Whether the groups' warps depend on each other.")
    probabilistic: bool = plain(
        True, "Whether warps are means over candidates, or regressed."
    )
    consistency_weight: float = number(
        0.0, "Weight of the consistency loss, the paper's lambda.", at_least=0
    )
    consistency_margin: float = number(
        30.0, "Margin of the consistency loss, the paper's alpha.", at_least=0
    )
    images_per_class: int = number(
        1,
        "Images of the same class in a batch; 1: batches in random order.",
        above=0,
    )
    new_layers_rate: float = number(
        1.0,
        "Learning rate of the layers behind the backbone, relative to the backbone's; "
        "only with `sgd`.",
        above=0,
    )

    def __post_init__(self):
        super().__post_init__()
        if self.new_layers_rate != 1 and self.optimizer != "sgd":
            fail(self, "new_layers_rate", f"1 with {self.optimizer}")

    def check(self, recipe):
        super().check(recipe)
        if recipe.batch_size % self.images_per_class:
            expected = f"a divisor of batch_size={recipe.batch_size}"
            fail(self, "images_per_class", expected)


OPTIONS = VolumetricTransformerOptions
