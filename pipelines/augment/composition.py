"""Augmentations by name or composed of operations: read without TensorFlow.

An augmentation is a name of `AUGMENTATIONS` or a composition of `OPERATIONS`, such as
`resize(72)|random_crop(64)|flip|erase(0.25)`. `keras_attn.pipelines.augment.operations`
applies it.
"""

import functools
import itertools
import operator
import re
from typing import NamedTuple

from keras_attn._checks import did_you_mean, number_in


class Argument(NamedTuple):
    """The type, range and default of an argument.

    `None` as the default stands for the argument before, or for none.
    """

    kind: type
    interval: str
    default: float | None = None


_SIDES = {"height": Argument(int, "[1, inf)"), "width": Argument(int, "[1, inf)")}

OPERATIONS = {
    "translate": {"padding": Argument(int, "[1, inf)", 4)},
    "flip": {"probability": Argument(float, "[0, 1]", 0.5)},
    "resize": _SIDES,
    "random_crop": _SIDES,
    "resized_crop": {"smallest_area": Argument(float, "(0, 1]", 0.08)},
    "rotate_crop": {
        "degrees": Argument(float, "[0, 180]", 15.0),
        "share": Argument(float, "(0, 1]", 1.0),
        "mirror": Argument(float, "[0, 1]", 0.0),
    },
    "erase": {"probability": Argument(float, "[0, 1]", 0.2)},
    "colour": {
        "brightness": Argument(float, "[0, 1]", 0.2),
        "contrast": Argument(float, "[0, 1]"),
        "saturation": Argument(float, "[0, 1]"),
    },
    "grid_mask": {
        "ratio": Argument(float, "[0, 1]", 0.5),
        "rotation": Argument(float, "[0, 0.5]", 0.15),
    },
}
# Operations whose results have the size of their arguments.
SIZED = ("resize", "random_crop")

AUGMENTATIONS = {
    # The class-embedding paper's: pad 4 and crop, horizontal flip.
    "translate_flip": "translate|flip",
    "translate_flip_grid_mask": "translate|flip|grid_mask",
    # That of the attention-masked residual networks.
    "translate_flip_erase": "translate|flip|erase",
    "flip": "flip",
    # The usual one of ImageNet, and a milder one for small data sets.
    "random_resized_crop_flip": "resized_crop|flip",
    "mild_resized_crop_flip": "resized_crop(0.5)|flip",
    # Volumetric Transformer Networks, section 3.5: 448 of 512 pixels. The paper leaves
    # the angle open.
    "rotate_crop_flip": "rotate_crop(15, 0.875, 0.5)",
    "none": "",
}


class Step(NamedTuple):
    """An operation of a composition.

    Attributes:
        name: Name of `OPERATIONS`.
        arguments: Values of all its arguments.
    """

    name: str
    arguments: tuple


@functools.lru_cache
def parse(augmentation):
    """The steps of an augmentation.

    Args:
        augmentation: Name of `AUGMENTATIONS`, or operations and names joined by `|`.

    Returns:
        Tuple of `Step`s.

    Raises:
        ValueError: If it names anything else, or an argument is outside its range.
    """
    steps = []
    for part in str(augmentation).split("|"):
        found = re.fullmatch(r"\s*(\w+)\s*(?:\((.*)\)\s*)?", part)
        name, arguments = found.groups() if found else (part, None)
        if name in OPERATIONS:
            steps.append(Step(name, _values(augmentation, name, arguments)))
        elif name not in AUGMENTATIONS or arguments is not None:
            names = tuple(dict.fromkeys([*AUGMENTATIONS, *OPERATIONS]))
            raise ValueError(
                f"Expected the augmentation to be one of {', '.join(AUGMENTATIONS)}, "
                f"or operations joined by | among {', '.join(OPERATIONS)}. "
                f"Received: {augmentation!r}{did_you_mean(name, names)}"
            )
        elif AUGMENTATIONS[name]:
            steps += parse(AUGMENTATIONS[name])
    return tuple(steps)


def check_augmentation(augmentation, size=None):
    """Checks an augmentation, and that it keeps the size of images.

    Args:
        augmentation: See `parse`.
        size: Height and width of the images, or `None` to check the operations alone.

    Raises:
        ValueError: See `parse`, and if a crop is larger than its image or the results
            have another size.
    """
    now = size
    for name, arguments in parse(augmentation):
        if name not in SIZED:
            continue
        larger = now and any(map(operator.gt, arguments, now))
        if name == "random_crop" and larger:
            raise ValueError(
                f"Expected crops of at most {now[0]} x {now[1]} pixels, the image. "
                f"Received: {augmentation!r} with {arguments[0]} x {arguments[1]}"
            )
        now = arguments
    if size is not None and now != tuple(size):
        raise ValueError(
            f"Expected the augmentation to end with images of {size[0]} x {size[1]} "
            f"pixels. Received: {augmentation!r}, which ends with {now[0]} x {now[1]}"
        )


def _values(augmentation, name, text):
    """Values of an operation's arguments."""
    arguments, values = OPERATIONS[name], []
    given = text.split(",") if text and text.strip() else []
    if len(given) > len(arguments):
        raise ValueError(
            f"Expected at most {len(arguments)} arguments of {name}. "
            f"Received: {augmentation!r}"
        )
    for (argument, allowed), part in itertools.zip_longest(arguments.items(), given):
        default = values[-1] if allowed.default is None and values else allowed.default
        try:
            value = allowed.kind(default if part is None else part)
            values.append(number_in(argument, value, allowed.interval))
        except (TypeError, ValueError):
            kind = "an integer" if allowed.kind is int else "a number"
            raise ValueError(
                f"Expected {argument} of {name} to be {kind} in {allowed.interval}. "
                f"Received: {augmentation!r}"
            ) from None
    return tuple(values)
