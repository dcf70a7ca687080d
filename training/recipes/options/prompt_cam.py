"""Options of Prompt-CAM."""

import dataclasses
import pathlib
from typing import ClassVar

from keras_attn.pipelines.augment.composition import check_augmentation
from keras_attn.training.recipes.blocks import Options
from keras_attn.training.recipes.fields import choice, number, plain


@dataclasses.dataclass(frozen=True)
class PromptCamOptions(Options):
    """A prompt per class in a frozen transformer, see `keras_attn.models.prompt_cam`.

    Without `model` it is a new transformer that learns as a whole, without prompts.
    """

    # Few weights learn, all of them new.
    usual_rate: ClassVar[float] = 5e-3

    model: str = plain(
        "",
        "The trained transformer: folder of a run, or model file; empty: a new one.",
    )
    pixels: str = plain("", "Pixels that it takes, see `keras-attn adopt`.")
    output: str = plain("", "Its output with the scores, where it has several.")
    variant: str = choice("deep", "Places of the prompts.", "deep", "shallow")
    prompted: int = number(
        0, "Number of last blocks that have prompts; 0: all.", at_least=0
    )
    size: str = plain(
        "mini", "Size of a new transformer, a name or WIDTH,BLOCKS,HEADS."
    )
    patch_size: int = number(8, "Side of a new transformer's patches.", above=0)
    label_smoothing: float = number(
        0.1, "Share of a label spread over all classes.", at_least=0, below=1
    )
    patience: int = number(
        3, "Epochs without a better validation before the end; 0: all.", at_least=0
    )
    augmentation: str = plain(
        "mild_resized_crop_flip|colour",
        "As of other classifiers, see docs/augmentation.md.",
    )

    def check(self, recipe):
        check_augmentation(self.augmentation, (recipe.image_size, recipe.image_size))

    @property
    def backbone(self):
        return pathlib.Path(self.model).stem or "vit"

    @property
    def row(self):
        return f"{self.variant}_prompts" if self.model else "class_token"


OPTIONS = PromptCamOptions
