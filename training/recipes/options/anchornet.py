"""Options of AnchorNet."""

import dataclasses

from keras_attn.training.recipes.blocks import Classifier
from keras_attn.training.recipes.fields import number, plain


@dataclasses.dataclass(frozen=True)
class AnchorNetOptions(Classifier):
    """A localiser, or a network that classifies whole images or localised patches."""

    localizer: str = plain(
        "",
        "Folder of a run, or model file, that localises the patches that the network "
        "is trained on; empty: it is trained on whole images.",
    )
    patches_per_image: int = number(
        4, "Localised patches of an image seen in an epoch.", above=0
    )
    max_patches: tuple[int, ...] = number(
        (5, 3, 2), "Most patches of an image that are classified, per branch.", above=0
    )
    iou_threshold: float = number(
        0.3, "Patches overlap by less than this.", at_least=0, at_most=1
    )
    coverage: tuple[float, ...] = number(
        (0.05, 0.04, 0.03),
        "Share of the cells that patches are chosen among, per branch.",
        above=0,
        at_most=1,
    )

    def patch_settings(self):
        """Choice of patches at inference, as arguments of `LocalizePatches`."""
        return {
            "max_patches": self.max_patches,
            "iou_threshold": self.iou_threshold,
            "coverage": self.coverage,
        }


OPTIONS = AnchorNetOptions
