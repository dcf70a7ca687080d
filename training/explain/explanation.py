"""Base of all explanations of one image, and panels that several kinds share."""

import dataclasses

import numpy as np

from keras_attn.pipelines.images.fonts import drawable
from keras_attn.training.drawing import Grid, draw_image, sheet, wrap
from keras_attn.training.runs.outputs import top_classes


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Base of the explanations of single images.

    Args:
        image: `(H, W, 3)` 8-bit pixels, as the model gets them.
        probabilities: `(classes,)`.
        class_names: One name per class.
        title: Name of the image.
    """

    image: np.ndarray
    probabilities: np.ndarray
    class_names: tuple
    title: str

    @classmethod
    def of_images(cls, subject, images, titles, probabilities, *values):
        """One explanation per image.

        Args:
            subject: `Trained`.
            images: `(examples, height, width, 3)`, 8-bit.
            titles: One name per image; `None`: its number.
            probabilities: `(examples, classes)`.
            values: For each further field, one value per image.
        """
        names = tuple(subject.class_names)
        titles = titles or [f"image {number}" for number in range(1, len(images) + 1)]
        columns = np.asarray(images), probabilities, titles, *values
        return [
            cls(image, row, names, title, *own)
            for image, row, title, *own in zip(*columns, strict=True)
        ]

    def top(self, count):
        """Labels of the most probable classes."""
        return top_classes(self.probabilities, count).tolist()

    def name(self, label):
        """A class's name in pictures."""
        return drawable(self.class_names[label], label)

    def answer(self):
        """The most probable class with its probability."""
        (best,) = self.top(1)
        return f"{self.name(best)} ({100 * self.probabilities[best]:.1f} %)"

    def decision(self):
        """The image's name, its class and its probability."""
        return f"{self.title}: {self.answer()}"

    def caption(self, label, probabilities=None):
        """A class's name and probability, for a panel of that class."""
        if probabilities is None:
            probabilities = self.probabilities
        return f"{wrap(self.name(label))}\n{100 * probabilities[label]:.1f} %"

    def heading(self, label):
        """The image's name, and a class with its probability."""
        name = wrap(self.name(label))
        return f"{wrap(self.title)}\n{name}: {100 * self.probabilities[label]:.1f} %"


def image_sheet(explanations, columns, note=""):
    """An overview, a `Grid`, with the images in its first column, to be filled.

    There is one row per `Explanation`, with `columns` panels, that of the image
    included.
    """
    figure, axes = sheet(len(explanations), columns, explanations[0].image, note)
    for axis, explanation in zip(axes[:, 0], explanations, strict=True):
        draw_image(axis, explanation.image)
        axis.set_title(wrap(explanation.title), fontsize=8)
    return Grid(figure, axes)


def draw_probabilities(axis, explanation, labels):
    """The probabilities of some classes as bars, in a panel of the image's shape."""
    percent = 100 * explanation.probabilities[labels]
    axis.set_axis_on()
    axis.barh(range(len(labels)), percent, color="#56B4E9", height=0.8)
    for place, (label, value) in enumerate(zip(labels, percent, strict=True)):
        text = f"{wrap(explanation.name(label))}: {value:.1f} %"
        axis.text(2, place, text, va="center", fontsize=7)
    axis.set(xlim=(0, 100), ylim=(len(labels) - 0.4, -0.6), yticks=[])
    axis.set_box_aspect(explanation.image.shape[0] / explanation.image.shape[1])
    axis.tick_params(labelsize=7)
    axis.set_title("probability of classes, %", fontsize=9)
