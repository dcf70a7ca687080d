"""A trained model -> a SavedModel with its preprocessing inside."""

import json
import os
import pathlib
import re
import shutil

import keras

from keras_attn.models.localizer import branches_of
from keras_attn.preprocessing import ImagePreprocessing
from training.localizers import (
    chooses_patches,
    has_evidence,
    localizer_of,
    localizing,
)
from training.serving.agreement import check_agreement
from training.trained import load_trained


def export(path, name=None, version=None, output="saved_models", checkpoint="best"):
    """Writes a SavedModel that TensorFlow alone can run.

    Signatures, both at any batch size:

    - `serving_default`: `image_bytes`, encoded JPEG, PNG, GIF or BMP files of any size,
      decoded and fitted as in training;
    - `images`: raw pixels 0..255 of the model's size, float32.

    Outputs: the model's own (`logits`, perhaps `patch_logits`), `probabilities`, and
    `class`, the name of the most probable class. Of a localiser also its patches, as
    `with_patches` gives them, chosen as its recipe says. `assets.extra/image_spec.json`
    holds the image spec with the class names and, of a localiser, its branches, which
    the output `branch` counts, and how patches are chosen.

    The export is written to a hidden folder, reloaded and compared with the model, and
    only then renamed, so that a server which watches the folder never sees half of
    one.

    Args:
        path: Folder of a run, or a `.keras` file.
        name: Name of the served model; by default the recipe's or the file's.
        version: Positive integer; by default one more than the highest there.
        output: Folder of all exported models.
        checkpoint: `best` or `last` model of a run.

    Returns:
        The folder `OUTPUT/NAME/VERSION`.

    Raises:
        ValueError: On another backend than TensorFlow; for a bad name; if the version
            exists; if the export disagrees with the model.
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "Expected the TensorFlow backend to write a SavedModel. Received: "
            f"KERAS_BACKEND={keras.backend.backend()}. Run the same command with "
            "KERAS_BACKEND=tensorflow."
        )
    trained = load_trained(path, checkpoint)
    name = name or trained.name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(
            "Expected a name of letters, digits, '.', '_' and '-'. "
            f"Received: name={name!r}"
        )
    parent = pathlib.Path(output) / name
    target = _target(parent, version)
    parent.mkdir(parents=True, exist_ok=True)
    # Not a number, so a server ignores it.
    temporary = parent / f".{target.name}.partial-{os.getpid()}"
    try:
        model, settings = _with_patches(trained)

        def answer(images):
            return _outputs(model, trained.class_names, images)

        _write(answer, model, trained.spec, temporary)
        _describe(trained, model, settings, temporary)
        check_agreement(answer, model, trained.spec, temporary)
        if target.exists():
            raise FileExistsError(f"{target} exists already: another export was faster")
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _target(parent, version):
    versions = [
        int(folder.name)
        for folder in (parent.iterdir() if parent.is_dir() else ())
        if folder.name.isdecimal()
    ]
    if version is None:
        version = max(versions, default=0) + 1
    if version < 1:
        raise ValueError(
            f"Expected a positive version number. Received: version={version}"
        )
    if version in versions:
        raise ValueError(
            f"Expected a new version. Received: version={version}, and "
            f"{parent / str(version)} exists; leave --version out for the next one."
        )
    return parent / str(version)


def _with_patches(trained):
    """`localizing` of a localiser; any other model as it is."""
    if has_evidence(trained.model) and not chooses_patches(trained.model):
        return localizing(trained)
    return trained.model, None


def _write(answer, model, spec, folder):
    import tensorflow as tf

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serving_default",
        _bytes_endpoint(answer, spec),
        [tf.TensorSpec((None,), tf.string, "image_bytes")],
    )
    archive.add_endpoint(
        "images",
        answer,
        [tf.TensorSpec(model.inputs[0].shape, tf.float32, "images")],
    )
    archive.write_out(str(folder), verbose=False)


def _describe(trained, model, settings, folder):
    """Writes what a client needs to know beside the model."""
    spec = trained.spec
    shapes = {name: list(value.shape) for name, value in model.output.items()}
    facts = {
        "name": trained.name,
        "image_spec": {**spec.to_dict(), "class_names": list(trained.class_names)},
        "outputs": {**shapes, "probabilities": shapes["logits"], "class": [None]},
    }
    if chooses_patches(model):
        size = (spec.height, spec.width)
        facts["branches"] = branches_of(localizer_of(model), size)
        facts["patch_settings"] = settings
    extra = folder / "assets.extra"
    extra.mkdir()
    (extra / "image_spec.json").write_text(json.dumps(facts, indent=2) + "\n")


def _bytes_endpoint(answer, spec):
    import tensorflow as tf

    fit_size = ImagePreprocessing(spec).fit_size
    size = (spec.height, spec.width)

    def decode(data):
        # The decoder of `pipelines.decoding.decode_image`.
        image = tf.io.decode_image(data, channels=3, expand_animations=False)
        image.set_shape((None, None, 3))
        # As in training, images of the right size stay as they are.
        image = tf.cond(
            tf.reduce_all(tf.equal(tf.shape(image)[:2], size)),
            lambda: image,
            lambda: tf.cast(fit_size(image), tf.uint8),
        )
        return tf.ensure_shape(image, (*size, 3))

    def call(image_bytes):
        signature = tf.TensorSpec((*size, 3), tf.uint8)
        images = tf.map_fn(decode, image_bytes, fn_output_signature=signature)
        return answer(tf.cast(images, tf.float32))

    return call


def _outputs(model, class_names, images):
    import tensorflow as tf

    outputs = dict(model(images, training=False))
    logits = tf.cast(outputs["logits"], tf.float32)
    label = tf.argmax(logits, axis=-1)
    return {
        **outputs,
        "probabilities": tf.nn.softmax(logits),
        "class": tf.gather(tf.constant(class_names), label),
    }
