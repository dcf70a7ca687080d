"""Labels of images, from what lies beside them, and their classes."""

import re
from typing import NamedTuple

import numpy as np

# The most classes that numbers without names may stand for.
NUMBERED = 100_000
PARTS = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
LABEL_COLUMNS = ("label", "class", "category", "target", "cls")


def part_of(path):
    """The part that the name of a file or of a folder around it shows, or ""."""
    *folders, name = path.split("/")
    words = [re.split(r"[-_.]", name)[0], *folders]
    return next((PARTS[word] for word in words if word in PARTS), "")


class Labels(NamedTuple):
    """Known classes of images.

    Attributes:
        numbers: (N,) int32, places in `texts`; -1 for an image without label.
        texts: Labels as they were found, each once: names or numbers of classes.
        names: Names of the classes that the source gives, in the order of their
            numbers, or empty.
        parts: Part of the official division of each image, `train`, `validation`,
            `test` or ""; `None` without one.
    """

    numbers: np.ndarray
    texts: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    parts: np.ndarray | None = None

    @classmethod
    def of(cls, texts, names=(), parts=None):
        """The labels of one text, or `None`, for each image."""
        places = {}
        numbers = [
            -1 if text is None else places.setdefault(text, len(places))
            for text in texts
        ]
        return cls(np.array(numbers, np.int32), tuple(places), tuple(names), parts)

    def official(self):
        """Index arrays of the parts; empty unless they have all images and `train`."""
        parts = [] if self.parts is None else np.unique(self.parts).tolist()
        if "train" not in parts or len(parts) < 2 or "" in parts:
            return {}
        return {
            part: np.flatnonzero(self.parts == part)
            for part in dict.fromkeys(PARTS.values())
            if part in parts
        }

    def resolved(self):
        """Names of the classes, and the number of the class of each of `texts`.

        Numbers stand for the names given, else for themselves; texts are the names, in
        sorted order.

        Raises:
            ValueError: A label that is none of the given classes.
        """
        numeric = all(text.isascii() and text.isdigit() for text in self.texts)
        names = self.names
        if numeric and self.texts:
            numbers = [int(text) for text in self.texts]
            if not names and max(numbers) < NUMBERED:
                return tuple(map(str, range(max(numbers) + 1))), numbers
            if names and max(numbers) < len(names):
                return names, numbers
        names = names or tuple(sorted(self.texts))
        place = {name: number for number, name in enumerate(names)}
        for text in self.texts:
            if text not in place:
                raise ValueError(
                    f"Expected a label among the {len(names)} classes {names[0]!r} to "
                    f"{names[-1]!r}. Received: {text!r}"
                )
        return names, [place[text] for text in self.texts]
