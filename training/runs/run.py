"""The folder of a training run: create, check, open."""

import dataclasses
import importlib
import json
import os
import pathlib
import re
import zipfile

import keras

# Loading a model needs its layers registered.
import keras_attn.models  # noqa: F401
from keras_attn.pipelines.collections.open import expand
from keras_attn.pipelines.files import (
    DAMAGE,
    partial_path,
    read_json,
    write_then_rename,
)
from keras_attn.preprocessing import spec_of
from keras_attn.training.recipes.schema import Recipe
from keras_attn.training.runs.model_limits import limited_weights
from keras_attn.training.runs.state import load_progress

# The first bytes of an HDF5 file.
HDF5 = b"\x89HDF\r\n\x1a\n"
# File with the path of the data.
DATA = "data.json"


def read_model(path):
    """Loads the model of a `.keras` or `.h5` file.

    Nothing in the file is run; models that need code of their own, or have `Lambda`
    layers, are refused.

    Raises:
        ValueError: If it is damaged, or refused.
    """
    _check_is_model(path)
    try:
        with limited_weights(path):
            if zipfile.is_zipfile(path):
                _import_hub(path)
            return keras.saving.load_model(path, compile=False)
    except Exception as error:
        # Damaged configurations fail anywhere in Keras, with any error.
        raise ValueError(f"Cannot load the model {path}: {_reason(error)}") from error


def _reason(error):
    """The first line of Keras's error; plain words for code that is not in a file."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if "No model config found" in line:
        return "it holds weights alone. Name their network: NAME=WEIGHTS.h5"
    own = re.search(r"Could not locate (?:class|function) '(\w+)'", line)
    kind = own and own[1] or ("Lambda" if "`Lambda`" in line else "")
    if not kind:
        return line
    return (
        f"it needs code that is in no file, {kind}. Load it where that code is, in "
        "Python: keras_attn.adopt takes functional and sequential models, and "
        "keras_attn.explain.occlusion any model"
    )


@dataclasses.dataclass(frozen=True)
class Run:
    """A training run's folder.

    `recipe.json` names what was trained, `history.csv` holds one line per epoch,
    `checkpoints/` the training state (`last.npz`) and the models `last.keras` and
    `best.keras`, `tensorboard/` the event files.
    """

    workdir: pathlib.Path
    recipe: Recipe

    @classmethod
    def create(cls, workdir, recipe):
        """Makes the folder, or continues in it if it belongs to the same recipe.

        A finished run may get more epochs.

        Raises:
            ValueError: If the folder belongs to another recipe, or holds other files.
        """
        run = cls.check(workdir, recipe)
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        path = run.workdir / "recipe.json"
        if not path.exists() or cls.open(workdir).recipe != recipe:
            with write_then_rename(path) as file:
                file.write(recipe.to_json().encode())
        return run

    @classmethod
    def check(cls, workdir, recipe):
        """The run that `create` would give; touches nothing, raises the same."""
        workdir = pathlib.Path(workdir)
        if (workdir / "recipe.json").exists():
            _check_same(cls.open(workdir).recipe, recipe, workdir)
        elif not _is_unused(workdir):
            raise ValueError(
                f"Expected a new folder or the folder of a run. Received: {workdir}, "
                "which holds something else. Choose another --workdir."
            )
        return cls(workdir, recipe)

    @classmethod
    def open(cls, workdir):
        """The run of an existing folder."""
        workdir = pathlib.Path(workdir)
        path = workdir / "recipe.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"Expected the folder of a training run. Received: {workdir}, "
                "without a recipe.json. `keras-attn train` makes one."
            )
        try:
            return cls(workdir, Recipe.from_dict(read_json(path)))
        except DAMAGE as error:
            raise ValueError(f"Cannot read the recipe in {path}: {error}") from error

    def remember_data(self, data):
        """Keeps the path of the run's data, absolute and relative to its folder.

        URLs stay as they are.
        """
        if "://" in str(data):
            self._keep_data({"path": str(data)})
            return
        path = pathlib.Path(data).expanduser().resolve()
        self._keep_data(
            {
                "path": str(path),
                "relative": os.path.relpath(path, self.workdir.resolve()),
            }
        )

    def _keep_data(self, kept):
        with write_then_rename(self.workdir / DATA) as file:
            file.write((json.dumps(kept, indent=2) + "\n").encode())

    def data(self):
        """The path of the data that the run was trained on, or `None`.

        Raises:
            FileNotFoundError: If nothing is there any more.
        """
        file = self.workdir / DATA
        if not file.is_file():
            return None
        try:
            kept = json.loads(file.read_text())
            if "://" in kept["path"]:
                return kept["path"]
            places = [pathlib.Path(kept["path"]), self.workdir / kept["relative"]]
        except (TypeError, *DAMAGE) as error:
            raise ValueError(f"Cannot read {file}: {error}") from error
        for place in places:
            # A pattern of shards has one of them at least.
            if pathlib.Path(expand(str(place))[0]).exists() or place.exists():
                return str(place)
        raise FileNotFoundError(
            f"Expected the data of {self.workdir} where they were. Received: "
            f"{places[0]}, which does not exist. Pass their path: --data PATH."
        )

    @property
    def checkpoints(self):
        return self.workdir / "checkpoints"

    def model_path(self, which="best"):
        path = self.checkpoints / f"{which}.keras"
        if not path.is_file():
            raise FileNotFoundError(
                f"No {which} model in {self.workdir} yet: no epoch has ended. "
                "`keras-attn train` with the same --workdir resumes."
            )
        return path

    def load_model(self, which="best"):
        """The model of the `best` (validation accuracy) or the `last` epoch."""
        return read_model(self.model_path(which))

    def spec(self, which="best"):
        return spec_of(self.load_model(which))


def model_file(path, checkpoint="best"):
    """The file of a run's `best` or `last` model, or the file itself."""
    path = pathlib.Path(path)
    if path.is_dir():
        path = Run.open(path).model_path(checkpoint)
    if not path.is_file():
        raise FileNotFoundError(
            "Expected the folder of a run or a .keras file. "
            f"Received: {path}, which does not exist."
        )
    _check_is_model(path)
    return path


def _check_is_model(path):
    with open(path, "rb") as file:
        is_hdf5 = file.read(len(HDF5)) == HDF5
    if is_hdf5 and pathlib.Path(path).suffix.lower() in (".h5", ".hdf5"):
        return
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"Expected a .keras file. Received: {path} (not a .keras file, or damaged)."
        )


def _import_hub(path):
    """Imports KerasHub where a file has layers of it, which Keras then knows."""
    with zipfile.ZipFile(path) as archive:
        if b'"keras_hub' not in archive.read("config.json"):
            return
    try:
        importlib.import_module("keras_hub")
    except ImportError as error:
        raise ImportError("it has layers of KerasHub: pip install keras-hub") from error


def _is_unused(workdir):
    """True if nothing is there, but for what a run killed at its start leaves."""
    if not workdir.exists():
        return True
    own = {"checkpoints", partial_path(workdir / "recipe.json").name}
    return (
        workdir.is_dir()
        and {path.name for path in workdir.iterdir()} <= own
        and not any((workdir / "checkpoints").glob("*"))
    )


def _check_same(found, wanted, workdir):
    found, wanted = found.to_dict(), wanted.to_dict()
    done = load_progress(workdir / "checkpoints" / "last.npz").epochs
    if done >= found["epochs"] < wanted["epochs"]:
        # A finished run may be extended.
        found["epochs"] = wanted["epochs"]
    differences = [
        f"{name}={found.get(name)!r} there, {wanted.get(name)!r} now"
        for name in wanted
        if found.get(name) != wanted.get(name)
    ]
    if differences:
        raise ValueError(
            f"The folder {workdir} belongs to another recipe: "
            f"{'; '.join(differences)}. Choose another --workdir."
        )
