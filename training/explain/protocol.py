"""Protocol of explainers: maps of a model's answers, and their pictures."""

from typing import Protocol, runtime_checkable

import numpy as np
from matplotlib.figure import Figure

from keras_attn.training.explain.explanation import Explanation
from keras_attn.training.trained import Trained


@runtime_checkable
class Explainer(Protocol):
    """One kind of explanation: a module, or an object with settings.

    `measurable` is true where the explanation is one map per class over the image;
    the explainer then also has `maps(subject, images, labels)`, which returns
    `(images, classes, height, width)` for labels `(images, classes)`, as
    `keras_attn.training.explain.faithfulness` takes them.
    """

    measurable: bool

    def explain(
        self, subject: Trained, images: np.ndarray, titles: list[str] | None = None
    ) -> list[Explanation]:
        """One explanation per image.

        Args:
            subject: Model with the outputs that the explainer names.
            images: `(examples, height, width, 3)`, 8-bit, of the model's size.
            titles: One name per image; `None`: its number.

        Raises:
            ValueError: If the model has nothing of the kind.
        """
        ...

    def picture(self, explanation: Explanation, labels: list[int]) -> Figure:
        """The explanation of one image; labels: classes to draw, in this order."""
        ...

    def sheet(self, explanations: list[Explanation], rows: list[list[int]]) -> Figure:
        """An overview, one image per row; rows: for each the labels of its classes."""
        ...
