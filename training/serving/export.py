"""Exports of trained models with their preprocessing inside."""

import contextlib
import json
import os
import pathlib
import re
import shutil

import keras

from keras_attn.models.localizer import branches_of
from keras_attn.training.explain.localizers import (
    chooses_patches,
    has_evidence,
    localizer_of,
    localizing,
)
from keras_attn.training.serving import configs
from keras_attn.training.serving.agreement import check_agreement
from keras_attn.training.serving.model_card import NAME as CARD
from keras_attn.training.serving.model_card import model_card
from keras_attn.training.serving.portable import FILES, write_portable
from keras_attn.training.serving.preset import write_preset
from keras_attn.training.serving.saved_model import signatures_of, write_saved_model
from keras_attn.training.serving.signatures import PIXELS, answers_of
from keras_attn.training.serving.warmup import FOLDER, MISSING, has_protos, write_warmup
from keras_attn.training.trained import load_trained

FORMATS = ("saved_model", "onnx", "litert", "openvino", "preset")


def export(path, name=None, version=None, output="saved_models", checkpoint="best"):
    """Writes a SavedModel that TensorFlow alone can run.

    See `export_formats`, of which this is the format `saved_model`.

    Returns:
        The folder `OUTPUT/NAME/VERSION`.
    """
    (folder,) = export_formats(path, name, version, output, checkpoint).values()
    return folder


def export_formats(
    path,
    name=None,
    version=None,
    output="saved_models",
    checkpoint="best",
    formats=("saved_model",),
    say=print,
):
    """Writes a trained model in one format or several.

    A SavedModel has these signatures, at any batch size, see
    `keras_attn.training.serving.signatures`:

    - `serving_default`: `image_bytes`, encoded JPEG, PNG, GIF or BMP files of any size,
      decoded and fitted as in training;
    - `image`: `images`, raw pixels 0..255 of the model's size, float32;
    - `explain`, `embed`: from `image_bytes`, where the model has something to show or a
      vector that describes an image;
    - `explain_class`: from `image_bytes` and `label`, int32, -1 for the best class, the
      Grad-CAM `map` of that class, its `box`, `class` and `score`.

    The first two answer with `logits`, `probabilities` and `class`, the name of the
    most probable class; a localiser also answers with the patches of `with_patches`,
    chosen by the settings of its recipe. A model that does not classify answers with
    its `embedding`. ONNX and LiteRT files take `images` and answer as `image` does, but
    for `class`. A preset is a folder for `keras_attn.models.from_preset`.

    Beside a SavedModel, in `assets.extra`, and beside the other formats lie `card.md`
    and `image_spec.json`: the image spec with the class names, the signatures and, for
    a localiser, its branches, which the output `branch` counts, and how patches are
    chosen. A SavedModel also has warm-up requests, and the folder of all models the
    files that TensorFlow Serving needs, see `keras_attn.training.serving.configs`.

    Exports are written to hidden folders, reloaded and compared with the model, and
    only then renamed, so that a server that watches the folder never sees half of one.

    Args:
        path: Folder of a run, or a `.keras` file.
        name: Name of the served model; by default the recipe's or the file's.
        version: Positive integer; by default one more than the highest there.
        output: Folder of all exported models.
        checkpoint: `best` or `last` model of a run.
        formats: Some of `FORMATS`.
        say: Function that is called with a sentence on what is left out.

    Returns:
        Dict from the formats to their folders, `OUTPUT/NAME/VERSION` and for the
        others such as `OUTPUT/NAME/onnx/VERSION`.

    Raises:
        ValueError: On another backend than TensorFlow; for a bad name or format; if the
            version exists; if an export disagrees with the model, or its format has not
            the operations. Nothing is written then.
        ImportError: If a package that a format needs is missing.
    """
    _check_backend()
    formats = _checked_formats(formats)
    trained = load_trained(path, checkpoint, classifies=False)
    name = name or trained.name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or name in FORMATS:
        raise ValueError(
            "Expected a name of letters, digits, '.', '_' and '-', and none of "
            f"{', '.join(FORMATS)}. Received: name={name!r}"
        )
    parent = pathlib.Path(output) / name
    version = _free_version(parent, version)
    targets = {each: _folder(parent, each) / str(version) for each in formats}
    if "saved_model" in formats and has_protos():
        # A damaged file is an error before anything is written.
        configs.read_models_config(output)
    # Not numbers, so a server ignores them.
    temporary = {
        each: target.parent / f".{target.name}.partial-{os.getpid()}"
        for each, target in targets.items()
    }
    parents = {target.parent for target in targets.values()} | {parent, parent.parent}
    made = sorted((each for each in parents if not each.exists()), reverse=True)
    try:
        exported = _Exported(trained, name, version)
        for each, folder in temporary.items():
            folder.parent.mkdir(parents=True, exist_ok=True)
            exported.write(each, folder)
        for each, target in targets.items():
            if target.exists():
                raise FileExistsError(
                    f"{target} already exists: created by a concurrent export"
                )
            temporary[each].rename(target)
    finally:
        for folder in temporary.values():
            shutil.rmtree(folder, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):  # Not empty, or never made.
                folder.rmdir()
    if "onnx" in formats:
        configs.write_triton(targets["onnx"] / FILES["onnx"])
    if "saved_model" in formats:
        configs.write_templates(output, name)
        if has_protos():
            configs.write_models_config(output)
        else:
            say(MISSING)
    return targets


class _Exported:
    """A trained model with its answers, written in one format or several.

    Args:
        trained: `Trained`.
        name, version: Name and version of the served model.
    """

    def __init__(self, trained, name, version):
        self.trained, self.name, self.version = trained, name, version
        self.model, self.settings = _with_patches(trained)
        self.answers = answers_of(trained, self.model)

    def write(self, format, folder):
        """Writes the folder of a format, complete and compared with the model."""
        if format == "preset":
            write_preset(self.trained, folder)
            self._write_card(folder, None)
            return
        if format != "saved_model":
            write_portable(format, self.trained, self.answers[PIXELS], folder)
            self._describe(folder, None)
            return
        import tensorflow as tf

        spec = self.trained.spec
        write_saved_model(self.answers, self.model, spec, folder)
        functions = {name: answer.of_best for name, answer in self.answers.items()}
        # It must outlive its signatures.
        loaded = tf.saved_model.load(str(folder))
        check_agreement(functions, self.model, spec, loaded)
        extra = folder / FOLDER
        extra.mkdir()
        self._describe(extra, signatures_of(loaded))
        if has_protos():
            write_warmup(self.name, self.answers, spec, folder)

    def _describe(self, folder, signatures):
        """Writes `image_spec.json` and the card."""
        trained = self.trained
        spec = trained.spec
        facts = {
            "name": trained.name,
            "image_spec": {**spec.to_dict(), "class_names": list(trained.class_names)},
        }
        if signatures:
            facts["signatures"] = signatures
        if chooses_patches(self.model):
            size = (spec.height, spec.width)
            facts["branches"] = branches_of(localizer_of(self.model), size)
            facts["patch_settings"] = self.settings
        text = json.dumps(facts, indent=2) + "\n"
        (folder / "image_spec.json").write_text(text)
        self._write_card(folder, signatures)

    def _write_card(self, folder, signatures):
        card = model_card(self.trained, self.name, self.version, signatures)
        (folder / CARD).write_text(card)


def _check_backend():
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "Expected the TensorFlow backend to write a SavedModel. Received: "
            f"KERAS_BACKEND={keras.backend.backend()}. Run the same command with "
            "KERAS_BACKEND=tensorflow."
        )


def _checked_formats(formats):
    formats = tuple(dict.fromkeys(formats))
    if not formats or not set(formats) <= set(FORMATS):
        raise ValueError(f"Expected formats among {FORMATS}. Received: {formats}")
    return formats


def _folder(parent, format):
    """Folder of a format's versions; the server ignores names that are no numbers."""
    return parent if format == "saved_model" else parent / format


def _free_version(parent, version):
    """A version that no format has."""
    versions = {
        int(folder.name): folder
        for format in FORMATS
        for folder in _folder(parent, format).glob("*")
        if folder.name.isdecimal()
    }
    if version is None:
        version = max(versions, default=0) + 1
    if version < 1:
        raise ValueError(
            f"Expected a positive version number. Received: version={version}"
        )
    if version in versions:
        raise ValueError(
            f"Expected a new version. Received: version={version}, and "
            f"{versions[version]} exists; leave --version out for the next one."
        )
    return version


def _with_patches(trained):
    """`localizing` of a localiser; any other model as it is."""
    if has_evidence(trained.model) and not chooses_patches(trained.model):
        localizer, settings = localizing(trained)
        return localizer.model, settings
    return trained.model, None
