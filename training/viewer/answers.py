"""What a model answers to an image: plain data that a page can show."""

import dataclasses

from keras_attn.training.explain.explanation import Explanation
from keras_attn.training.runs.outputs import outputs_of, softmax
from keras_attn.training.viewer.panels import Picture, plain
from keras_attn.training.viewer.sections import SECTIONS, Section

CLASSES_SHOWN = 5
MAPS_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a model answers to one image, and why.

    Args:
        model: Name of the model.
        image: `Picture` of what the model gets.
        classes: List of `(name, probability)`, the most probable first.
        sections: List of `Section`.
        notes: Sentences on what of the file is not used.
    """

    model: str
    image: Picture
    classes: list
    sections: list
    notes: tuple = ()

    @property
    def predicted(self):
        """Name of the most probable class."""
        return self.classes[0][0]


@dataclasses.dataclass(frozen=True)
class _Probable(Explanation):
    probabilities: object


def answer(viewed, upload, name):
    """What a model answers to an image.

    Args:
        viewed: `keras_attn.training.viewer.library.Viewed`.
        upload: `keras_attn.training.viewer.uploads.Upload`.
        name: What the model is called.

    Returns:
        `Answer`. A section that this model cannot give says why.

    Raises:
        UploadError: If the image is damaged.
        ValueError: If the model's answer is not finite.
    """
    pixels = upload.pixels(viewed.spec)
    logits = outputs_of(viewed.classifier, pixels)["logits"]
    probabilities = softmax(logits)[0]
    order = _Probable(probabilities).top(CLASSES_SHOWN)
    height, width = pixels.shape[1:3]
    image = plain(
        pixels[0],
        f"What the model gets: {height} x {width} pixels",
        f"{upload.name}, cut and resized to {height} x {width} pixels.",
    )
    return Answer(
        name,
        image,
        [(viewed.class_names[label], float(probabilities[label])) for label in order],
        [
            section
            for make in SECTIONS
            if (section := _section(make, viewed, pixels, order[:MAPS_SHOWN]))
        ],
        upload.notes,
    )


def _section(make, viewed, pixels, labels):
    """A section, or one that says why it could not be made."""
    try:
        return make(viewed, pixels, labels)
    except ValueError as error:
        title = make.__name__.replace("_", " ").capitalize()
        title = title.replace("Grad cam", "Grad-CAM")
        return Section(title, f"Not for this model: {error}")
