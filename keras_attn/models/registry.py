"""Backbones by name."""

import difflib

import keras

from keras_attn.models.cifar_resnet import resnet20, rn26, rn38
from keras_attn.models.densenet import dn100
from keras_attn.models.wide_resnet import wrn16

BACKBONES = {
    "rn26": rn26,
    "rn38": rn38,
    "wrn16": wrn16,
    "dn100": dn100,
    "resnet20": resnet20,
}


def build_model(backbone, **options) -> keras.Model:
    """The model of the backbone of that name.

    Args:
        backbone: One of `BACKBONES`.
        **options: The builder's arguments, such as `row`, `input_shape`,
            `num_classes`, `weight_decay`, `input_tensor`.

    Raises:
        ValueError: If there is no backbone of that name.

    Example:

    >>> model = build_model("rn26", row="class_embedding", num_classes=10)
    >>> sorted(model.output)
    ['logits', 'patch_logits']
    """
    if backbone not in BACKBONES:
        nearest = difflib.get_close_matches(str(backbone), BACKBONES, 1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(
            f"Expected `backbone` to be one of {tuple(BACKBONES)}. "
            f"Received: backbone={backbone!r}.{hint}"
        )
    return BACKBONES[backbone](**options)
