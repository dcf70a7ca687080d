"""Augmentations by name or composed of operations: read without TensorFlow.

An augmentation is a name of `AUGMENTATIONS` or a composition of `OPERATIONS`, such as
`resize(72)|random_crop(64)|flip|erase(0.25)`. `keras_attn.pipelines.augment.operations`
applies it.
"""

import dataclasses
import functools
import math
import operator
import re
from typing import NamedTuple

from keras_attn._checks import did_you_mean


@dataclasses.dataclass(frozen=True)
class Argument:
    """An argument of an operation and its range, both ends allowed.

    Args:
        name: Name, for messages.
        low, high: Range.
        default: Value where it is not given; `None` stands for the argument before,
            and for a required one where there is none before.
        kind: `int` or `float`.
    """

    name: str
    low: float
    high: float = math.inf
    default: float | None = None
    kind: type = float


_SIDES = (Argument("height", 1, kind=int), Argument("width", 1, kind=int))

OPERATIONS = {
    "translate": (Argument("padding", 1, default=4, kind=int),),
    "flip": (Argument("probability", 0, 1, 0.5),),
    "resize": _SIDES,
    "random_crop": _SIDES,
    "resized_crop": (Argument("smallest_area", 0.01, 1, 0.08),),
    "rotate_crop": (
        Argument("degrees", 0, 180, 15.0),
        Argument("share", 0.01, 1, 1.0),
        Argument("mirror", 0, 1, 0.0),
    ),
    "erase": (Argument("probability", 0, 1, 0.2),),
    "grid_mask": (Argument("ratio", 0, 1, 0.5), Argument("rotation", 0, 0.5, 0.15)),
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
    allowed = OPERATIONS[name]
    given = [part.strip() for part in text.split(",")] if text and text.strip() else []
    if len(given) > len(allowed):
        raise ValueError(
            f"Expected at most {len(allowed)} arguments of {name}. "
            f"Received: {augmentation!r}"
        )
    values = []
    for place, argument in enumerate(allowed):
        default = argument.default
        if default is None and values:
            default = values[-1]
        values.append(default)
        if place < len(given):
            values[-1] = _number(given[place], argument)
        if values[-1] is None:
            kind = "an integer" if argument.kind is int else "a number"
            top = "" if argument.high == math.inf else f" and at most {argument.high}"
            raise ValueError(
                f"Expected {argument.name} of {name} to be {kind} of at least "
                f"{argument.low}{top}. Received: {augmentation!r}"
            )
    return tuple(values)


def _number(text, argument):
    """A text as a number within an argument's range, or `None`."""
    try:
        value = argument.kind(text)
    except ValueError:
        return None
    # Also false for NaN.
    return value if argument.low <= value <= argument.high else None
