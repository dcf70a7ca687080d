"""A trained model to use: from a run folder or from a `.keras` file of any origin."""

import dataclasses
import pathlib

import keras
import numpy as np

# Loading a model needs its layers registered.
import keras_attn.models  # noqa: F401
from keras_attn.explain.occlusion import scores
from keras_attn.graph.flat import FlatGraph
from keras_attn.graph.head import head_of_model, output_key, output_names
from keras_attn.models.anchornet import without_auxiliary
from keras_attn.preprocessing import ImageSpec, spec_of
from keras_attn.training.choices import CHECKPOINTS, PIXELS
from keras_attn.training.methods import method_of
from keras_attn.training.runs.outputs import softmax
from keras_attn.training.runs.run import Run, model_file, read_model
from keras_attn.training.runs.state import load_progress

# For models that leave the size of their images open.
USUAL_SIZE = 224


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model with its file, its run, its images and its classes.

    Args:
        model: The Keras model. One of this project takes raw pixels and returns a dict
            of named outputs.
        path: Its file.
        run: The `Run` that it belongs to, or `None`.
        checkpoint: `best` or `last`, or `None` outside a run.
        assumed: For a model of others, which carries no `ImageSpec`: the spec that its
            images are fitted by.
        pixels: For a model of others: key of `PIXELS`.
    """

    model: keras.Model
    path: pathlib.Path
    run: Run | None = None
    checkpoint: str | None = None
    assumed: ImageSpec | None = None
    pixels: str = "0..255"

    @property
    def is_ours(self):
        """True for a model of this project: named outputs, pixels as they are."""
        return self.assumed is None

    @property
    def spec(self):
        """`ImageSpec` of the images that the model sees."""
        return spec_of(self.model) if self.is_ours else self.assumed

    @property
    def name(self):
        """Name of the run's recipe, or of the file."""
        return self.run.recipe.name if self.run else self.path.stem

    @property
    def class_names(self):
        """A name for every class, its number where the model has none.

        Empty for a model that does not classify.
        """
        if not self.is_ours:
            return self.assumed.class_names
        if "logits" not in self.model.output:
            return ()
        return self.spec.class_names or _numbers(_class_count(self.model))

    @property
    def note(self):
        """The assumptions about a model of others in a sentence, or an empty text."""
        if self.is_ours:
            return ""
        return (
            f"{self.path} is not a model of this project: images are cut to "
            f"{self.spec.height} x {self.spec.width}, their pixels scaled to "
            f"{self.pixels} (--pixels), and classes called by number."
        )

    @property
    def judged(self):
        """The model as it is evaluated; a control may have one of its own."""
        if self.run is None:
            return self.model
        control = method_of(self.run.recipe).control_model(self.model, self.run)
        return control or self.model

    @property
    def epoch(self):
        """The epoch after which the model was saved, or `None` outside a run."""
        if self.run is None:
            return None
        progress = load_progress(self.run.checkpoints / "last.npz")
        last = self.checkpoint == "last"
        return progress.epochs if last else progress.best_epoch + 1

    def inputs(self, images):
        """8-bit images as the model takes them."""
        if self.is_ours:
            return images
        low, high = PIXELS[self.pixels]
        return low + (high - low) / 255 * np.asarray(images, "float32")

    def probabilities(self, images):
        """Probabilities `(images, classes)` of 8-bit images.

        A single score stands for two classes; several sigmoids are labels of their own.
        """
        found = scores(self.model, self.inputs(images))
        head = None if self.is_ours else head_of_model(self.model)
        kind = head.kind if head else None
        if kind in ("log_softmax", "log_sigmoid"):
            found, kind = np.exp(found), kind.removeprefix("log_")
        if found.shape[1] == 1:
            if kind not in ("softmax", "sigmoid"):
                found = softmax(np.concatenate([np.zeros_like(found), found], axis=1))
                return found.astype("float32")
            return np.concatenate([1 - found, found], axis=1)
        return found if kind in ("softmax", "sigmoid") else softmax(found)


def load_trained(path, checkpoint="best", classifies=True, pixels=None, head=None):
    """Loads the model of a run folder, or of a `.keras` file, as it is used.

    A run's model is its method's `serving_model`, see `keras_attn.training.methods`; a
    file's is without the outputs that only its training needs, whose names begin with
    `auxiliary`. A model of others is used by its input and output alone: images are
    fitted to its size, their values are scaled to `pixels`, and classes are called by
    their number. Nothing in the file is run; models that need code of their own, or
    have `Lambda` layers, are refused.

    Args:
        path: Folder of a run, or a model file. A file in a run's `checkpoints` folder
            counts as that run's.
        checkpoint: Model of a run folder: `best` (validation accuracy) or `last`.
        classifies: Whether the model must; one that does not has the output
            `embedding`.
        pixels: Values for black and white that a model of others takes, a key of
            `PIXELS`; `None`: models of others are refused.
        head: Name of the output with the scores; `None`: `logits`, or the only one.

    Raises:
        FileNotFoundError: If there is nothing, or no model yet.
        ValueError: If it is not such a model, takes no images or returns no scores.
    """
    if pixels not in (None, *PIXELS):
        raise ValueError(
            f"Expected `pixels` to be one of {tuple(PIXELS)}. Received: {pixels!r}"
        )
    path, run, checkpoint = _located(path, checkpoint)
    model = read_model(path)
    if head is not None:
        model, run, checkpoint = _with_head(model, path, head), None, None
    if run is None and pixels is not None and not _is_ours(model):
        return _of_others(model, path, pixels)
    _check_outputs(model, path, classifies)
    if run is None:
        model = without_auxiliary(model)
    else:
        model = method_of(run.recipe).serving_model(model, run)
    trained = Trained(model, path, run, checkpoint)
    _check_class_names(trained)
    return trained


def _located(path, checkpoint):
    """The model's file, its run or `None`, and the checkpoint if there is a run."""
    if checkpoint not in CHECKPOINTS:
        raise ValueError(
            f"Expected `checkpoint` to be one of {CHECKPOINTS}. "
            f"Received: checkpoint={checkpoint!r}"
        )
    file = model_file(path, checkpoint)
    folder = file.parent.parent
    if file.stem in CHECKPOINTS and (folder / "recipe.json").is_file():
        return file, Run.open(folder), file.stem
    return file, None, None


def _with_head(model, path, head):
    """The model with one output alone, as `logits` in a model of this project."""
    is_ours = _is_ours(model)
    scores = _scores(model, path, head)
    outputs = {"logits": scores} if is_ours else scores
    return keras.Model(model.input, outputs, name=model.name)


def _scores(model, path, head=None):
    """The output `(batch, classes)` of a model; the only one where none is named."""
    graph = FlatGraph(model)
    names = output_names(graph)
    if head is None and len(names) > 1 and "logits" not in names:
        raise ValueError(
            f"Expected the name of an output (--head NAME), one of {', '.join(names)}. "
            f"Received: {path} with several"
        )
    if head is not None and head not in names:
        raise ValueError(
            f"Expected `head` to be one of the outputs {', '.join(names)} of {path}. "
            f"Received: head={head!r}"
        )
    return graph.tensors[output_key(graph, head)]


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
    count = max(_scores(model, path).shape[-1], 2)
    height, width = (side or USUAL_SIZE for side in shape[1:3])
    spec = ImageSpec(height, width, class_names=_numbers(count))
    return Trained(model, path, assumed=spec, pixels=pixels)


def _numbers(count):
    return tuple(str(label) for label in range(count))


def _class_count(model):
    return model.output["logits"].shape[-1]


def _check_outputs(model, path, classifies):
    output = getattr(model, "output", None)
    names = list(output) if isinstance(output, dict) else "without names"
    if "logits" in names or (not classifies and "embedding" in names):
        return
    either = "" if classifies else " or 'embedding'"
    raise ValueError(
        f"Expected a model with an output named 'logits'{either}. "
        f"Received: {path} with outputs {names}"
    )


def _check_class_names(trained):
    if not trained.class_names:
        return
    count = _class_count(trained.model)
    named = len(trained.spec.class_names)
    if named not in (0, count):
        raise ValueError(
            f"Expected a name for each of {count} classes. "
            f"Received: {trained.path} with {named} class names"
        )
