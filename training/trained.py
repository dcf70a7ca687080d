"""A trained model to use: from a run folder or from a `.keras` file of any origin."""

import dataclasses
import functools
import pathlib

import keras
import numpy as np

# Loading a model needs its layers registered.
import keras_attn.models  # noqa: F401
from keras_attn.graph.head import has_labels
from keras_attn.models.adopted import PIXELS, ModelPixels, adopt
from keras_attn.models.anchornet import without_auxiliary
from keras_attn.models.pixel_check import likely_pixels
from keras_attn.preprocessing import spec_of
from keras_attn.training.adoption import ModelSource, adopted, origin_of
from keras_attn.training.choices import CHECKPOINTS
from keras_attn.training.methods import method_of
from keras_attn.training.runs.outputs import outputs_of, sigmoid, softmax
from keras_attn.training.runs.run import Run, model_file, read_model
from keras_attn.training.runs.state import load_progress

# Images that the pixels of a model are checked with.
CHECKED = 4


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model with its file, its run, its images and its classes.

    Args:
        model: The Keras model, from raw pixels to a dict of named outputs; one of
            others is adopted, see `keras_attn.adopt`.
        path: Its file, or its name.
        run: The `Run` that it belongs to, or `None`.
        checkpoint: `best` or `last`, or `None` outside a run.
        note: The assumptions about a model of others in a sentence, or an empty text.
        source: The `ModelSource` that it was loaded from.
    """

    model: keras.Model
    path: pathlib.Path
    run: Run | None = None
    checkpoint: str | None = None
    note: str = ""
    source: ModelSource | None = None

    @property
    def spec(self):
        """`ImageSpec` of the images that the model sees."""
        return spec_of(self.model)

    @property
    def name(self):
        """Name of the run's recipe, or of the file."""
        return self.run.recipe.name if self.run else ModelSource.of(self.path).name

    @property
    def class_names(self):
        """A name for every class, its number where the model has none.

        Empty for a model that does not classify.
        """
        if "logits" not in self.model.output:
            return ()
        return self.spec.class_names or _numbers(_class_count(self.model))

    @functools.cached_property
    def several_labels(self):
        """`True` if its classes do not exclude each other, by what its graph does."""
        return has_labels(self.model)

    @property
    def thresholds(self):
        """Least probability with which each of several labels is named."""
        return np.array(self.spec.thresholds or (0.5,) * len(self.class_names))

    def labels_of(self, probabilities):
        """Names of the labels of an image from their thresholds on, the best first.

        `None` for classes that exclude each other.
        """
        if not self.several_labels:
            return None
        order = np.argsort(-probabilities, kind="stable")
        named = probabilities >= self.thresholds
        return [self.class_names[label] for label in order if named[label]]

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

    def probabilities(self, images):
        """Probabilities `(images, classes)` of 8-bit images."""
        outputs = outputs_of(self.model, images, names=("logits", "probabilities"))
        return self.probabilities_of(**outputs)

    def pixels_warning(self, images, titles):
        """A sentence on pixels that suit the model better, or an empty text.

        Args:
            images: 8-bit images; a few of them are looked at.
            titles: Their names.
        """
        images = np.asarray(images[:CHECKED])
        better = likely_pixels(self.model, images)
        if better is None:
            return ""
        found = []
        for pixels in (None, *PIXELS):
            other = dataclasses.replace(self, model=adopt(self.model, pixels=pixels))
            row = other.probabilities(images)[0]
            best = self.class_names[int(row.argmax())]
            found.append(f"{pixels or 'as now'}: {best} ({100 * row.max():.0f} %)")
        return (
            f"The pixels may be wrong; {better} would suit the network better "
            f"(--pixels). Answers for {titles[0]}: {'; '.join(found)}."
        )

    def probabilities_of(self, logits, probabilities=None):
        """Probabilities of outputs; those of the model itself count, where it has any.

        Args:
            logits, probabilities: `(images, classes)`.
        """
        if probabilities is not None:
            return probabilities
        return sigmoid(logits) if self.several_labels else softmax(logits)


def load_trained(path, checkpoint="best", classifies=True):
    """Loads the model of a run folder, or of anybody's file, as it is used.

    A run's model is its method's `serving_model`, see `keras_attn.training.methods`; a
    file's is without the outputs that only its training needs, whose names begin with
    `auxiliary`. A model of others is adopted, see `keras_attn.training.adoption`.
    Nothing in a file is run; models that need code of their own, or have `Lambda`
    layers, are refused.

    Args:
        path: Folder of a run, or a model; or a `ModelSource`. A file in a run's
            `checkpoints` folder counts as that run's.
        checkpoint: Model of a run folder: `best` (validation accuracy) or `last`.
        classifies: Whether the model must; one that does not has the output
            `embedding`.

    Raises:
        FileNotFoundError: If there is nothing, or no model yet.
        ValueError: If it is not such a model, takes no images or returns no scores.
    """
    source = ModelSource.of(path)
    path, run, checkpoint = _located(source, checkpoint)
    note = ""
    if run is not None and source.output is None:
        model = method_of(run.recipe).serving_model(read_model(path), run)
    else:
        model, note = adopted(dataclasses.replace(source, path=path))
        model, run, checkpoint = without_auxiliary(model), None, None
    note = note or _unused(source, run, model)
    if note and source.say:
        source.say(note)
    _check_outputs(model, path, classifies)
    trained = Trained(model, path, run, checkpoint, note, source)
    _check_class_names(trained)
    return trained


def _located(source, checkpoint):
    """The model's file, its run or `None`, and the checkpoint if there is a run."""
    if checkpoint not in CHECKPOINTS:
        raise ValueError(
            f"Expected `checkpoint` to be one of {CHECKPOINTS}. "
            f"Received: checkpoint={checkpoint!r}"
        )
    if origin_of(source.path) != "file":
        return source.path, None, None
    file = model_file(source.path, checkpoint)
    folder = file.parent.parent
    if file.stem in CHECKPOINTS and (folder / "recipe.json").is_file():
        return file, Run.open(folder), file.stem
    return file, None, None


def _unused(source, run, model):
    """Names the options of a source that its model has no use for."""
    given = {"--pixels": source.pixels, "--size": source.size}
    given["--thresholds"] = source.thresholds or None
    if run is not None:
        given["--classes"] = source.classes
    elif any(isinstance(layer, ModelPixels) for layer in model.layers):
        return ""
    names = [name for name, value in given.items() if value is not None]
    return f"{source.path} has its own: {', '.join(names)} unused." if names else ""


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
