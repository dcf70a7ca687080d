"""A trained model to use: from a run folder or from a `.keras` file."""

import dataclasses
import pathlib
import zipfile

import keras
import numpy as np

# Loading a model needs its layers registered.
import keras_attn.models  # noqa: F401
from keras_attn.models.anchornet import without_auxiliary
from keras_attn.preprocessing import spec_of
from training.methods import method_of
from training.resume import load_progress
from training.run import Run

CHECKPOINTS = ("best", "last")


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model, where it is from, and what is known of it.

    Args:
        model: The Keras model: raw pixels in, a dict of named outputs out.
        path: Its file.
        run: The `Run` that it belongs to, or `None`.
        checkpoint: `best` or `last`, or `None` outside a run.
    """

    model: keras.Model
    path: pathlib.Path
    run: Run | None = None
    checkpoint: str | None = None

    @property
    def spec(self):
        return spec_of(self.model)

    @property
    def name(self):
        return self.run.recipe.name if self.run else self.path.stem

    @property
    def class_names(self):
        """A name for every logit, its number where the model knows none.

        Empty for a model that does not classify.
        """
        if "logits" not in self.model.output:
            return ()
        count = self.model.output["logits"].shape[-1]
        return self.spec.class_names or tuple(str(label) for label in range(count))

    @property
    def judged(self):
        """The model as it is evaluated: of a control perhaps not `model` itself."""
        method = method_of(self.run.recipe) if self.run else None
        if not hasattr(method, "control_model"):
            return self.model
        return method.control_model(self.model, self.run) or self.model

    @property
    def epoch(self):
        """The epoch after which the model was saved, or `None` outside a run."""
        if self.run is None:
            return None
        progress = load_progress(self.run.checkpoints / "last.npz")
        last = self.checkpoint == "last"
        return progress.epochs if last else progress.best_epoch + 1


def load_trained(path, checkpoint="best", classifies=True):
    """Loads the model of a run folder, or a `.keras` file, as it is used.

    A run's model is what its method makes of it, see `training.methods`; a file's is
    without the outputs that only its training needs, whose names begin with
    `auxiliary`.

    Args:
        path: Folder of a run, or a model file. A file in a run's `checkpoints` folder
            counts as that run's.
        checkpoint: Which model of a run folder: `best` (validation accuracy) or
            `last`.
        classifies: Whether it must. A model that does not has the output `embedding`.

    Raises:
        FileNotFoundError: If there is nothing, or no model yet.
        ValueError: If it is not a model of this project.
    """
    if checkpoint not in CHECKPOINTS:
        raise ValueError(
            f"Expected `checkpoint` to be one of {CHECKPOINTS}. "
            f"Received: checkpoint={checkpoint!r}"
        )
    path = pathlib.Path(path)
    run = None
    if path.is_dir():
        run = Run.open(path)
        path = run.model_path(checkpoint)
    elif not path.is_file():
        raise FileNotFoundError(
            "Expected the folder of a run or a .keras file. "
            f"Received: {path}, which does not exist."
        )
    elif path.stem in CHECKPOINTS and (path.parent.parent / "recipe.json").is_file():
        run = Run.open(path.parent.parent)
        checkpoint = path.stem
    model = read_model(path)
    _check_outputs(model, path, classifies)
    if run is None:
        model = without_auxiliary(model)
    else:
        model = method_of(run.recipe).serving_model(model, run)
    trained = Trained(model, path, run, checkpoint if run else None)
    _check_class_names(trained)
    return trained


def read_model(path):
    """The model of a `.keras` file of any kind; a `ValueError` if it is broken."""
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"Expected a .keras file. Received: {path}, which is none or is damaged."
        )
    try:
        return keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError, KeyError, OSError, zipfile.BadZipFile) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"Cannot load the model {path}: {lines[0]}") from error


def _check_outputs(model, path, classifies):
    output = model.output
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
    count = trained.model.output["logits"].shape[-1]
    known = len(trained.spec.class_names)
    if known not in (0, count):
        raise ValueError(
            f"Expected a name for each of {count} classes. "
            f"Received: {trained.path} with {known} class names"
        )


def with_outputs(model, names):
    """The model with some of its outputs, weights shared; the rest is not computed.

    Args:
        model: Functional model with a dict of outputs.
        names: Names of outputs; those that the model does not have are left out.
    """
    kept = {name: model.output[name] for name in names if name in model.output}
    if len(kept) == len(model.output):
        return model
    return keras.Model(model.input, kept, name=model.name)


def outputs_of(model, images, batch_size=128, names=None):
    """Named outputs of the model.

    Args:
        model: Model with a dict of outputs.
        images: `(examples, height, width, 3)`, raw pixels of the model's size; of a
            model with several inputs a dict of them.
        batch_size: Images at a time.
        names: Outputs to compute, see `with_outputs`; `None`: all.

    Returns:
        Dict of NumPy arrays; real numbers in float32.

    Raises:
        ValueError: If the images do not fit the model, or an output is not finite.
    """
    if isinstance(images, dict):
        images = {name: np.asarray(given) for name, given in images.items()}
    else:
        images = np.asarray(images)
    for given in keras.tree.flatten(images):
        _check_shape(given, model.inputs[0].shape[1:])
    if names is not None:
        model = with_outputs(model, names)
    outputs = model.predict(images, batch_size=batch_size, verbose=0)
    outputs = {name: _array(value) for name, value in outputs.items()}
    for name, value in outputs.items():
        if not np.isfinite(value).all():
            raise ValueError(
                f"Expected finite outputs. Received: NaN or infinite {name} from "
                f"{model.name!r}; its training diverged."
            )
    return outputs


def _check_shape(images, expected):
    if images.ndim != 4 or not _fits(images.shape[1:], expected):
        sizes = ", ".join("any" if size is None else str(size) for size in expected)
        raise ValueError(
            f"Expected images of shape (examples, {sizes}). Received: {images.shape}"
        )


def _fits(shape, expected):
    """Whether a shape is the expected one, where `None` stands for any size."""
    return all(
        size is None or size == found
        for found, size in zip(shape, expected, strict=True)
    )


def _array(value):
    value = np.asarray(value)
    # Whole numbers and booleans stay exact; NumPy itself knows no bfloat16.
    return value if value.dtype.kind in "biu" else value.astype("float32")


def softmax(logits):
    """Softmax over the last axis, in float64."""
    return np.exp(log_softmax(logits))


def log_softmax(logits):
    logits = np.asarray(logits, "float64")
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
