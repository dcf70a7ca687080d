"""The answer of a model to an image: plain data that a page can show."""

import dataclasses
from typing import NamedTuple

from keras_attn.training.runs.outputs import top_classes
from keras_attn.training.viewer.panels import Picture, plain
from keras_attn.training.viewer.sections import SECTIONS, Section

CLASSES_SHOWN = 5
MAPS_SHOWN = 3


class ShownClass(NamedTuple):
    """A class by name, and its probability in 0..1."""

    name: str
    probability: float


@dataclasses.dataclass(frozen=True)
class ViewerAnswer:
    """The classes and explanations of one image by one model.

    Args:
        model: Name of the model.
        image: `Picture` of the image as the model gets it.
        classes: List of `ShownClass`, the most probable first.
        sections: List of `Section`.
        notes: Sentences on the parts of the file that are not used.
        labels: See `Trained.labels_of`.
    """

    model: str
    image: Picture
    classes: list[ShownClass]
    sections: list[Section]
    notes: tuple = ()
    labels: list | None = None

    @property
    def predicted(self):
        """Name of the most probable class, or those of all labels of the image."""
        if self.labels is None:
            return self.classes[0].name
        return ", ".join(self.labels) or "no label"


def answer(viewed, upload, name):
    """The `ViewerAnswer` of a `Viewed` model of some name to an `Upload`.

    A section that this model cannot give contains the reason.

    Raises:
        UploadError: If the image is damaged.
        ValueError: If the model's answer is not finite.
    """
    pixels = upload.pixels(viewed.spec)
    probabilities = viewed.trained.probabilities(pixels)[0]
    order = top_classes(probabilities, CLASSES_SHOWN).tolist()
    height, width = pixels.shape[1:3]
    image = plain(
        pixels[0],
        f"The image as the model gets it: {height} x {width} pixels",
        f"{upload.name}, cut and resized to {height} x {width} pixels.",
    )
    return ViewerAnswer(
        name,
        image,
        [
            ShownClass(viewed.class_names[label], float(probabilities[label]))
            for label in order
        ],
        [
            section
            for make in SECTIONS
            if (section := _section(make, viewed, pixels, order[:MAPS_SHOWN]))
        ],
        upload.notes,
        viewed.trained.labels_of(probabilities),
    )


def _section(make, viewed, pixels, labels):
    """A section, or one with the reason why it could not be made."""
    try:
        return make(viewed, pixels, labels)
    except ValueError as error:
        title = make.__name__.replace("_", " ").capitalize()
        title = title.replace("Grad cam", "Grad-CAM")
        return Section(title, f"Not for this model: {error}")
