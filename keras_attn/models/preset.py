"""Trained networks by name: those of this package, of a folder, or of a handle."""

import os
import pathlib

import keras

from keras_attn._checks import did_you_mean
from keras_attn.models.adopted import adopt
from keras_attn.models.hub import HANDLES, from_hub

MODEL, CARD = "model.keras", "card.md"
PRESETS = pathlib.Path(__file__).parent / "presets"


def list_presets() -> list[str]:
    """The names of the trained networks that come with this package.

    Example:

    >>> list_presets()
    ['generated_vit_mini_8_dino', 'tf_flowers_lite0_squeeze_excitation']
    """
    return sorted(path.parent.name for path in PRESETS.glob(f"*/{MODEL}"))


def preset_file(preset: str | os.PathLike) -> pathlib.Path | None:
    """The `.keras` file of a preset's name or folder, or `None` for anything else.

    What lies at the path comes before the preset of that name.
    """
    place = pathlib.Path(preset)
    if (place / MODEL).is_file():
        return place / MODEL
    if not place.exists() and str(preset) in list_presets():
        return PRESETS / str(preset) / MODEL
    return None


def from_preset(preset: str | os.PathLike) -> keras.Model:
    """A trained network, from raw pixels to a dict of named outputs.

    A preset is a folder with `model.keras`, whose kernels are kept in half precision
    and computed with in float32, and `card.md`, with licence and measured accuracy.
    `keras-attn export RUN --format preset` writes one. Keras reads the file; nothing
    in it is run.

    Args:
        preset: Name in `list_presets()`; such a folder; or a handle: `hf://...`, of a
            model that `keras.saving.save_model` uploaded or of KerasHub's, and
            `kaggle://...`, of KerasHub's alone.

    Returns:
        Functional model that carries its `ImageSpec`, see `keras_attn.spec_of`. A
        model of others at a handle comes as `keras_attn.adopt` returns it.

    Raises:
        ValueError: If there is no such preset, or it cannot be loaded.
        ImportError: If a handle needs KerasHub, which is not installed.

    Example:

    >>> model = from_preset("tf_flowers_lite0_squeeze_excitation")
    >>> keras_attn.spec_of(model).class_names
    ('daisy', 'dandelion', 'roses', 'sunflowers', 'tulips')
    """
    if str(preset).startswith(HANDLES):
        opened = from_hub(preset)
        return adopt(opened.model, opened.class_names, opened.pixels, size=opened.size)
    file = preset_file(preset)
    if file is None:
        names = list_presets()
        raise ValueError(
            f"Expected one of the presets {', '.join(names)}, a folder with {MODEL}, "
            f"or a handle of {', '.join(HANDLES)}. Received: preset={str(preset)!r}"
            f"{did_you_mean(preset, names)}"
        )
    return keras.saving.load_model(file, compile=False)
