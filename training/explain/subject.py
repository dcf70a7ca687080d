"""Models to be explained: trained by this project, or by anybody else."""

import dataclasses
import pathlib

import keras
import numpy as np

from keras_attn.explain.occlusion import scores
from keras_attn.explain.split import output_key, without_probabilities
from keras_attn.graph.flat import FlatGraph
from keras_attn.models.anchornet import without_auxiliary
from keras_attn.preprocessing import ImageSpec, spec_of
from keras_attn.training.runs.outputs import read_model, softmax
from keras_attn.training.trained import load_trained

# What values a model of others wants for black and white.
PIXELS = {"0..255": (0, 255), "0..1": (0, 1), "-1..1": (-1, 1)}
# Of models that leave the size of their images open.
USUAL_SIZE = 224


@dataclasses.dataclass(frozen=True)
class ExplainedModel:
    """A model, its images and its classes.

    Args:
        model: The Keras model.
        path: Its file.
        spec: `ImageSpec` of the images that it sees.
        class_names: One name for each class.
        run: The `Run` that it belongs to, or `None`.
        pixels: Key of `PIXELS`.
        note: What a user should know, or empty.
    """

    model: keras.Model
    path: pathlib.Path
    spec: ImageSpec
    class_names: tuple
    run: object = None
    pixels: str = "0..255"
    note: str = ""

    @property
    def is_ours(self):
        """Whether it is a model of this project: named outputs, pixels as they are."""
        return not self.note

    def inputs(self, images):
        """8-bit images as the model takes them."""
        if self.is_ours:
            return images
        low, high = PIXELS[self.pixels]
        return low + (high - low) / 255 * np.asarray(images, "float32")

    def probabilities(self, images):
        """`(images, classes)` of 8-bit images."""
        found = scores(self.model, self.inputs(images))
        return found if self._gives_probabilities() else softmax(found)

    def _gives_probabilities(self):
        if self.is_ours:
            return False
        graph = FlatGraph(self.model)
        key = output_key(graph, None)
        return without_probabilities(graph, key) != (key, False)


def load_explained(path, checkpoint="best", pixels="0..255"):
    """Loads a run's model, a model file of this project, or one of others.

    Of a model of others nothing is known but its input and output: images are fitted
    to its size, their values are scaled to `pixels`, and classes are called by their
    number. Nothing in the file is run; models that need code of their own, or have
    `Lambda` layers, are refused.

    Args:
        path: Folder of a run, or a `.keras` file.
        checkpoint: `best` or `last` model of a run.
        pixels: What a model of others wants for black and white, a key of `PIXELS`.

    Raises:
        FileNotFoundError, ValueError: As `load_trained`, or if the model takes no
            images or returns no scores of classes.
    """
    if pixels not in PIXELS:
        raise ValueError(
            f"Expected `pixels` to be one of {tuple(PIXELS)}. Received: {pixels!r}"
        )
    path = pathlib.Path(path)
    if path.is_file() and not (path.parent.parent / "recipe.json").is_file():
        model = read_model(path)
        if not _is_ours(model):
            return _of_others(model, path, pixels)
        model = without_auxiliary(model)
        count = model.output["logits"].shape[-1]
        names = spec_of(model).class_names or _numbers(count)
        return ExplainedModel(model, path, spec_of(model), names)
    found = load_trained(path, checkpoint)
    return ExplainedModel(
        found.model, found.path, found.spec, found.class_names, found.run
    )


def _is_ours(model):
    output = getattr(model, "output", None)
    if not isinstance(output, dict) or "logits" not in output:
        return False
    try:
        spec_of(model)
    except ValueError:
        return False
    return True


def _of_others(model, path, pixels):
    inputs = list(getattr(model, "inputs", None) or [])
    shape = tuple(inputs[0].shape) if len(inputs) == 1 else None
    if shape is None or len(shape) != 4 or shape[-1] != 3:
        shapes = [tuple(each.shape) for each in inputs]
        raise ValueError(
            "Expected a model with one input (batch, height, width, 3). Received: "
            f"{path} with inputs {shapes}. In Python, keras_attn.explain takes models "
            "with several."
        )
    graph = FlatGraph(model)
    count = graph.tensors[output_key(graph, None)].shape[-1]
    height, width = (side or USUAL_SIZE for side in shape[1:3])
    note = (
        f"{path} is not a model of this project: images are cut to {height} x {width}, "
        f"their pixels scaled to {pixels} (--pixels), and classes called by number."
    )
    spec = ImageSpec(height, width, class_names=_numbers(count))
    return ExplainedModel(model, path, spec, spec.class_names, pixels=pixels, note=note)


def _numbers(count):
    return tuple(str(label) for label in range(count))
