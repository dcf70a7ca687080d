"""A trained model to use: from a run folder or from a `.keras` file."""

import dataclasses
import pathlib

import keras

# Loading a model needs its layers registered.
import keras_attn.models  # noqa: F401
from keras_attn.models.anchornet import without_auxiliary
from keras_attn.preprocessing import spec_of
from keras_attn.training.methods import method_of
from keras_attn.training.runs.outputs import read_model
from keras_attn.training.runs.run import Run
from keras_attn.training.runs.state import load_progress

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

    A run's model is what its method makes of it, see `keras_attn.training.methods`; a
    file's is without the outputs that only its training needs, whose names begin with
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
