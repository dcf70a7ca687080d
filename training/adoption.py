"""Anybody's model by file, name or handle, and the options that it is taken with."""

import contextlib
import dataclasses
import importlib
import io
import json
import os
import pathlib
import sys
from collections.abc import Callable

import keras
import numpy as np

from keras_attn._checks import did_you_mean
from keras_attn.models.adopted import (
    PIXELS,
    adopt,
    is_adopted,
    pixel_statistics,
)
from keras_attn.models.hub import HANDLES, Opened, first_line, from_hub
from keras_attn.models.preset import list_presets, preset_file
from keras_attn.pipelines.files import DAMAGE, read_json
from keras_attn.preprocessing import spec_of
from keras_attn.training.runs.model_limits import check_weights
from keras_attn.training.runs.run import model_file, read_model

DEFAULT_PIXELS = "0..255"


@dataclasses.dataclass(frozen=True)
class ModelSource:
    """A model, and what is known about it beside its file.

    Every function that takes the path of a model takes one of these in its place.

    Args:
        path: Folder of a run; `.keras` or `.h5` file; name of a network of
            `keras.applications`, as it is or as `NAME=WEIGHTS.h5`; preset of this
            package or of KerasHub, its folder, or a handle such as `hf://...`.
        classes: Names of the classes, or path of a text file with one per line.
        pixels: See `keras_attn.adopt`; `None`: those that the network is known to
            take, or 0..255.
        output: Name of the output with the scores.
        size: Height and width, where the model leaves them open.
        several_labels: See `keras_attn.adopt`.
        thresholds: See `keras_attn.adopt`; or path of a JSON file with them by the
            names of the labels, such as the output of `keras-attn evaluate --json`.
        say: Function that is called with a sentence on what is assumed, or `None`.
    """

    path: str | pathlib.Path
    classes: str | pathlib.Path | tuple | None = None
    pixels: str | tuple | None = None
    output: str | int | None = None
    size: tuple | None = None
    several_labels: bool = False
    thresholds: float | str | pathlib.Path | tuple = ()
    say: Callable | None = dataclasses.field(default=None, compare=False, repr=False)

    def __post_init__(self):
        if self.pixels is not None:
            pixel_statistics(self.pixels)

    @classmethod
    def of(cls, path):
        return path if isinstance(path, cls) else cls(path)

    @property
    def class_names(self):
        """Names of the classes; none where they are not known."""
        if self.classes is None or not isinstance(self.classes, (str, pathlib.Path)):
            return tuple(self.classes or ())
        return read_class_names(self.classes)

    @property
    def name(self):
        """A short name for the model."""
        path = str(self.path).partition("=")[0].rstrip("/")
        name = path.rpartition("/")[2]
        return pathlib.Path(name).stem if is_file_name(name) else name


def adopted(source):
    """The model of a `ModelSource`, not of a run, as `keras_attn.adopt` returns it.

    Returns:
        The model, and a sentence on what was assumed, empty for a model that carries
        all of it.
    """
    opened = open_model(source)
    names = source.class_names
    try:
        model = adopt(
            opened.model,
            names or opened.class_names,
            source.pixels or opened.pixels,
            source.output,
            source.size or opened.size,
            source.several_labels,
            _thresholds(source.thresholds, names or opened.class_names, opened.model),
        )
    except ValueError as error:
        raise ValueError(f"{source.path}: {error}") from error
    return model, _note(source, opened, model)


def open_model(source):
    """The `Opened` of a `ModelSource` that is no run."""
    origin = origin_of(source.path)
    if origin == "hub":
        return from_hub(str(source.path))
    if origin == "preset":
        return Opened(read_model(preset_file(source.path)))
    if origin == "file":
        return Opened(read_model(model_file(source.path)))
    name, _, weights = str(source.path).partition("=")
    return _application(applications()[name.lower()], weights, source.class_names)


def origin_of(path):
    """The kind of place that a model comes from: `file`, `application`, `preset`
    or `hub`.

    Raises:
        FileNotFoundError: If it is neither there nor a name.
    """
    text, place = str(path), pathlib.Path(path)
    if preset_file(path):
        return "preset"
    if text.startswith(HANDLES) or any(
        (place / file).is_file() for file in ("task.json", "metadata.json")
    ):
        return "hub"
    if "://" in text:
        raise ValueError(
            f"Expected a handle of {', '.join(HANDLES)}. Received: {text}. Download "
            "other files first"
        )
    if place.exists():
        return "file"
    name = text.partition("=")[0].lower()
    if name in applications():
        return "application"
    if "/" not in text and not is_file_name(text):
        if _is_preset(text):
            return "hub"
        raise FileNotFoundError(
            "Expected the folder of a run, a .keras or .h5 file, or the name of a "
            "preset or of a network of keras.applications. "
            f"Received: {text}, which does not exist"
            f"{did_you_mean(name, [*applications(), *list_presets()])}"
        )
    model_file(path)
    return "file"


def is_file_name(name):
    return name.lower().endswith((".keras", ".h5", ".hdf5"))


def read_class_names(path):
    """The names in a text file, one per line; or in a JSON file with a list."""
    path = pathlib.Path(path)
    if not path.is_file():
        problem = "is no file" if path.exists() else "does not exist"
        raise FileNotFoundError(
            f"Expected a text file with a class name per line. Received: {path}, which "
            f"{problem}."
        )
    try:
        if path.suffix == ".json":
            names = read_json(path)
            if type(names) is not list or not all(type(name) is str for name in names):
                raise ValueError("expected a list of texts")
            return tuple(names)
        text = path.read_text(encoding="utf-8-sig")
    except ValueError as error:
        raise ValueError(f"Cannot read the class names in {path}: {error}") from error
    names = tuple(line.strip() for line in text.splitlines())
    while names and not names[-1]:
        names = names[:-1]
    if not names or not all(names):
        empty = f"whose line {names.index('') + 1}" if names else "which"
        raise ValueError(
            f"Expected a class name per line. Received: {path}, {empty} is empty"
        )
    return names


def _thresholds(thresholds, names, model):
    """A number, or one for each of the names, for `keras_attn.adopt`."""
    with contextlib.suppress(ValueError, TypeError):
        return float(thresholds)
    if not isinstance(thresholds, (str, pathlib.Path)):
        return thresholds
    names = names or (spec_of(model).class_names if is_adopted(model) else ())
    try:
        known = read_json(pathlib.Path(thresholds))
        known = known.get("labels", known)
        found = [known[name] for name in names]
        found = [e["threshold"] if isinstance(e, dict) else e for e in found]
        # A label without images has no threshold of its own.
        return tuple(0.5 if each is None else float(each) for each in found)
    except DAMAGE as error:
        raise ValueError(
            f"Expected a JSON file with a threshold for each of the labels "
            f"{', '.join(names) or '(--classes)'}. Received: {thresholds}: {error}"
        ) from error


def _note(source, opened, model):
    """The assumptions about a model of others in a sentence, or an empty text."""
    if model is opened.model or is_adopted(opened.model):
        return ""
    spec = spec_of(model)
    pixels = source.pixels or opened.pixels or DEFAULT_PIXELS
    named = source.class_names or opened.class_names
    by = "" if named else ", and classes called by number (--classes)"
    return (
        f"{source.path} is not a model of this project: images are cut to "
        f"{spec.height} x {spec.width}, their pixels scaled to {pixels} (--pixels){by}."
    )


# ---- keras.applications --------------------------------------------------------------


def applications():
    """Dict from the names of networks, in small letters, to their builders."""
    found = vars(keras.applications)
    return {name.lower(): each for name, each in found.items() if name[:1].isupper()}


def _application(builder, weights, class_names):
    """A network with weights of its own cache, or of a file."""
    name = builder.__name__
    options = {"classes": len(class_names)} if weights and class_names else {}
    if weights and not pathlib.Path(weights).is_file():
        raise FileNotFoundError(
            f"Expected a file with the weights of {name}. Received: {weights}, which "
            "does not exist."
        )
    try:
        if weights:
            check_weights(weights)
        with contextlib.redirect_stdout(_Download()):
            model = builder(weights=weights or "imagenet", **options)
    except Exception as error:
        given = weights or "that Keras publishes"
        raise ValueError(
            f"Cannot load the weights {given} into {name}: {first_line(error)}. Name "
            f"a file of them as {name.lower()}=WEIGHTS.h5."
        ) from error
    names = () if weights else _imagenet_names()
    return Opened(model, names, _pixels_of(builder))


class _Download(io.TextIOBase):
    """Progress of a download on stderr, where it is no result, once something comes."""

    def __init__(self):
        self.announced = None

    def write(self, text):
        if self.announced is None:
            self.announced = text
        else:
            sys.stderr.write(self.announced + text)
            self.announced = ""
        return len(text)

    def flush(self):
        sys.stderr.flush()


def _pixels_of(builder):
    """The pixels that the module of a network prepares, measured at black and white."""
    modules = vars(keras.applications).values()
    own = [m for m in modules if getattr(m, builder.__name__, None) is builder]
    if not own:
        # Those of later networks scale inside.
        return DEFAULT_PIXELS
    black, white = (np.full((1, 1, 3), each, "float32") for each in (0, 255))
    prepare = own[0].preprocess_input
    low, high = (np.ravel(prepare(each.copy())) for each in (black, white))
    blue = np.zeros((1, 1, 3), "float32")
    blue[..., 2] = 255
    is_bgr = np.ravel(prepare(blue))[0] > low[0]
    for name, (mean, std, channels) in PIXELS.items():
        mean, std = np.array(mean), np.array(std)
        if channels == "bgr":
            mean = mean[::-1]
        expected = -mean / std, (1 - mean) / std
        if is_bgr == (channels == "bgr") and np.allclose(
            [low, high], expected, atol=1e-2
        ):
            return name
    raise ValueError(f"Unknown pixels of {builder.__name__}: {low}..{high}")


def _imagenet_names():
    """Names of the classes of ImageNet, if Keras has them in its cache."""
    home = os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras"
    file = pathlib.Path(home) / "models" / "imagenet_class_index.json"
    if not file.is_file():
        return ()
    index = json.loads(file.read_text())
    return tuple(index[str(label)][1] for label in range(len(index)))


# ---- KerasHub ------------------------------------------------------------------------


def _is_preset(name):
    with contextlib.suppress(ImportError):
        hub = importlib.import_module("keras_hub")
        return name in hub.models.ImageClassifier.presets
    return False
