"""A trained model -> a SavedModel with its preprocessing inside."""

import json
import os
import pathlib
import re
import shutil

import keras
import numpy as np

from keras_attn.preprocessing import ImagePreprocessing
from training.trained import load_trained

# Largest absolute difference of the probabilities between the model and its export.
TOLERANCE = {"float32": 1e-5, "mixed_bfloat16": 2e-2, "mixed_float16": 5e-3}


def export(path, name=None, version=None, output="saved_models", checkpoint="best"):
    """Writes a SavedModel that TensorFlow alone can run.

    Signatures, both at any batch size:

    - `serving_default`: `image_bytes`, encoded JPEG, PNG, GIF or BMP files of any size,
      decoded and fitted as in training;
    - `images`: raw pixels 0..255 of the model's size, float32.

    Outputs: the model's own (`logits`, perhaps `patch_logits`) and `probabilities`.
    `assets.extra/image_spec.json` holds the image spec with the class names.

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
        _write(trained, temporary)
        _compare(trained.model, temporary)
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


def _write(trained, folder):
    import tensorflow as tf

    model, spec = trained.model, trained.spec
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serving_default",
        _bytes_endpoint(model, spec),
        [tf.TensorSpec((None,), tf.string, "image_bytes")],
    )
    shape = (None, spec.height, spec.width, 3)
    archive.add_endpoint(
        "images",
        lambda images: _outputs(model, images),
        [tf.TensorSpec(shape, tf.float32, "images")],
    )
    archive.write_out(str(folder), verbose=False)
    extra = folder / "assets.extra"
    extra.mkdir()
    facts = {
        "name": trained.name,
        "image_spec": {**spec.to_dict(), "class_names": list(trained.class_names)},
        "outputs": {name: list(value.shape) for name, value in model.output.items()},
    }
    (extra / "image_spec.json").write_text(json.dumps(facts, indent=2) + "\n")


def _bytes_endpoint(model, spec):
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
        return _outputs(model, tf.cast(images, tf.float32))

    return call


def _outputs(model, images):
    outputs = dict(model(images, training=False))
    logits = keras.ops.cast(outputs["logits"], "float32")
    return {**outputs, "probabilities": keras.ops.softmax(logits)}


def _compare(model, folder):
    """Raises if the SavedModel disagrees with the model, on both signatures."""
    import tensorflow as tf

    shape = (2, *model.inputs[0].shape[1:])
    images = np.random.default_rng(0).integers(0, 256, shape, "uint8")
    expected = _outputs(model, tf.constant(images, tf.float32))
    # The loaded object must outlive its signatures.
    loaded = tf.saved_model.load(str(folder))
    encoded = tf.stack([tf.io.encode_png(image) for image in images])
    answers = {
        "serving_default": loaded.signatures["serving_default"](image_bytes=encoded),
        "images": loaded.signatures["images"](images=tf.constant(images, tf.float32)),
    }
    random = any("seed_generator_state" in each.path for each in model.variables)
    for signature, answer in answers.items():
        if set(answer) != set(expected):
            raise ValueError(
                f"Expected the outputs {sorted(expected)} of the export. "
                f"Received: {sorted(answer)} from {signature!r}"
            )
        # Layers that draw random numbers answer differently every time.
        for output in () if random else expected:
            _check_close(signature, output, expected[output], answer[output], model)


def _check_close(signature, output, expected, received, model):
    policies = {layer.dtype_policy.name for layer in model.layers}
    tolerance = max(TOLERANCE.get(policy, 1e-5) for policy in policies)
    expected, received = (np.asarray(each, "float64") for each in (expected, received))
    worst = np.max(np.abs(received - expected))
    scale = max(1.0, np.max(np.abs(expected)))
    if not worst <= tolerance * scale:
        raise ValueError(
            f"The export disagrees with the model: {output} of {signature!r} is off by "
            f"{worst:.2g}, of at most {scale:.2g}. Nothing was written."
        )
