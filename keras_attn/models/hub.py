"""Classifiers that others publish, by their handles."""

import contextlib
import dataclasses
import importlib
import sys

import keras
import numpy as np

HANDLES = ("hf://", "kaggle://", "modelscope://")


@dataclasses.dataclass(frozen=True)
class Opened:
    """A model as it was found.

    Args:
        model: Keras model.
        class_names, pixels, size: What its origin says about it, or nothing.
    """

    model: keras.Model
    class_names: tuple = ()
    pixels: str | tuple | None = None
    size: tuple | None = None


def from_hub(handle):
    """The `Opened` of a handle, or of the name or folder of a KerasHub preset.

    Raises:
        ImportError: If it needs KerasHub.
        ValueError: If it cannot be loaded.
    """
    try:
        hub = importlib.import_module("keras_hub")
        return of_hub(_fetched(handle, hub.models.ImageClassifier.from_preset))
    except (ImportError, ValueError) as error:
        # Keras itself reads what its own `save_model` has uploaded there.
        if str(handle).startswith("hf://"):
            return Opened(_fetched(handle, keras.saving.load_model, compile=False))
        if isinstance(error, ValueError):
            raise
        raise ImportError(f"{handle} needs KerasHub: pip install keras-hub") from error


def of_hub(model):
    """The `Opened` of a KerasHub classifier."""
    converter = getattr(getattr(model, "preprocessor", None), "image_converter", None)
    if converter is None:
        return Opened(model)
    scale = np.ravel(1.0 if converter.scale is None else converter.scale)
    offset = np.ravel(0.0 if converter.offset is None else converter.offset)
    scale, offset = (np.broadcast_to(each, 3).astype(float) for each in (scale, offset))
    mean, std = -offset / scale / 255, 1 / scale / 255
    size = tuple(converter.image_size) if converter.image_size else None
    return Opened(model, (), (mean.tolist(), std.tolist()), size)


def _fetched(handle, load, **options):
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return load(handle, **options)
    except Exception as error:
        raise ValueError(
            f"Cannot load {handle}: {first_line(error)}. Handles and presets are "
            "fetched over the network once."
        ) from error


def first_line(error):
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")
