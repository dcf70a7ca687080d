"""Options of fine-tuning."""

import dataclasses
import pathlib
from typing import ClassVar

from keras_attn.pipelines.augment.composition import check_augmentation
from keras_attn.training.recipes.blocks import Options
from keras_attn.training.recipes.fields import fail, number, plain


@dataclasses.dataclass(frozen=True)
class FinetuneOptions(Options):
    """A trained classifier of anybody's, with a new head and, if wanted, blocks.

    The first epoch trains what is new on the features of the frozen rest, which are
    computed once; all others train everything, at `learning_rate`.
    """

    # Of a training of all layers, with which the recipe of images of one's own begins.
    usual_rate: ClassVar[float] = 5e-4

    model: str = plain(
        "",
        "The trained classifier: folder of a run, model file, name of a network of "
        "`keras.applications`, or handle.",
    )
    pixels: str = plain("", "Pixels that it takes, see `keras-attn adopt`.")
    output: str = plain("", "Its output with the scores, where it has several.")
    blocks: str = plain(
        "",
        "Blocks as NAME or NAME@LAYER, separated by commas; NAME@auto: behind every "
        "stage; without a place, behind the last map.",
    )
    pooling: str = plain("", "Pooling of the last map; empty: the classifier's own.")
    dropout: float = number(
        0.2, "Share of features that the head leaves out.", at_least=0, below=1
    )
    label_smoothing: float = number(
        0.1, "Share of a label spread over all classes.", at_least=0, below=1
    )
    patch_loss_weight: float = number(
        0.5, "Weight of the loss of patch logits, if any.", at_least=0, at_most=1
    )
    head_steps: int = number(200, "Steps of the head in the first epoch.", above=0)
    new_epochs: int = number(
        10, "Passes that train new blocks in the first epoch.", at_least=0
    )
    new_rate: float = number(1e-3, "Learning rate of these passes.", above=0)
    patience: int = number(
        3, "Epochs without a better validation before the end; 0: all.", at_least=0
    )
    augmentation: str = plain(
        "mild_resized_crop_flip|colour",
        "As of other classifiers, see docs/augmentation.md.",
    )

    def __post_init__(self):
        super().__post_init__()
        if not all(name for name, _ in self.placed):
            fail(self, "blocks", "NAME or NAME@LAYER, separated by commas")

    def check(self, recipe):
        check_augmentation(self.augmentation, (recipe.image_size, recipe.image_size))

    @property
    def placed(self):
        """Pairs of a block's name and its place, which may be empty."""
        texts = [text for text in self.blocks.split(",") if text]
        return [(name, place) for name, _, place in (t.partition("@") for t in texts)]

    @property
    def backbone(self):
        return pathlib.Path(self.model).stem or "-"

    @property
    def row(self):
        return "+".join(filter(None, (self.pooling, self.blocks))) or "none"


OPTIONS = FinetuneOptions
