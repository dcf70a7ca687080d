"""The models that can be chosen: found, loaded once, used one at a time."""

import collections
import functools
import os
import pathlib
import threading

from keras_attn.training.adoption import ModelSource, origin_of
from keras_attn.training.choices import CHECKPOINTS
from keras_attn.training.explain.localizers import (
    chooses_patches,
    has_evidence,
    localizing,
)
from keras_attn.training.methods import method_of
from keras_attn.training.runs.outputs import with_outputs
from keras_attn.training.runs.run import Run, model_file
from keras_attn.training.trained import load_trained

# Models in memory at a time.
KEPT_MODELS = 8


class Viewed:
    """A trained model, and the models that are built from it once for all images.

    Args:
        trained: `Trained`.
    """

    def __init__(self, trained):
        self.trained = trained
        self.model = trained.model
        self.class_names = trained.class_names
        self.spec = trained.spec

    @functools.cached_property
    def classifier(self):
        """The model with its logits only."""
        return with_outputs(self.model, ["logits"])

    @functools.cached_property
    def with_patches(self):
        """`Trained` with its patches among the outputs, or `None` without any."""
        if chooses_patches(self.model) or has_evidence(self.model):
            return localizing(self.trained).localizer
        return None


class Library:
    """Models by name, loaded when they are first used.

    Args:
        paths: Run folders and models; or `ModelSource`s.
        checkpoint: `best` or `last` model of the runs.

    Raises:
        FileNotFoundError: If a path does not exist, or there are none.
    """

    def __init__(self, paths, checkpoint="best"):
        sources = map(ModelSource.of, paths)
        self.paths = {_name_of(source.path): source for source in sources}
        if not self.paths:
            raise FileNotFoundError(
                "Expected a run or a .keras file. Received: none, and none below "
                "runs/. `keras-attn demo` trains a model in minutes."
            )
        for source in self.paths.values():
            # Raises for a missing file; models are loaded later.
            if origin_of(source.path) == "file":
                model_file(source.path, checkpoint)
        self.checkpoint = checkpoint
        # Held while a model computes: two at once would take twice the memory and
        # be no faster.
        self.lock = threading.RLock()
        self._loaded = collections.OrderedDict()

    @property
    def names(self):
        return list(self.paths)

    def load(self, name):
        """The `Viewed` of a name.

        Raises:
            ValueError: If there is no such model, or it cannot be used.
        """
        if name not in self.paths:
            raise ValueError(f"Expected a model of the list. Received: {name!r}")
        with self.lock:
            if name not in self._loaded:
                trained = load_trained(self.paths[name], self.checkpoint)
                self._loaded[name] = Viewed(trained)
                if len(self._loaded) > KEPT_MODELS:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(name)
            return self._loaded[name]


def find_runs(folder):
    """The folders of runs below a folder that classify and have a model, sorted."""
    found = []
    for recipe in sorted(pathlib.Path(folder).rglob("recipe.json")):
        try:
            run = Run.open(recipe.parent)
        except ValueError:
            # An older version's; named on the command line it gives its error.
            continue
        if method_of(run.recipe).classifies and any(
            (run.checkpoints / f"{which}.keras").is_file() for which in CHECKPOINTS
        ):
            found.append(recipe.parent)
    return found


def _name_of(path):
    """The path as one would type it here."""
    if not pathlib.Path(path).exists():
        return str(path)
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
