"""Comparison of an exported model's answers with those of its Keras model."""

import functools

import numpy as np

from keras_attn.graph.keras_graph import layers_of
from keras_attn.training.serving.signatures import (
    LABEL,
    PIXELS,
    example_images,
    input_of,
)

# Largest difference of an output between the model and its export, relative to its
# largest value, or to `LEAST_SCALE` where that is less.
LEAST_SCALE = 0.1
TOLERANCE = {"float32": 1e-4, "mixed_bfloat16": 2e-2, "mixed_float16": 5e-3}
# Maps of Grad-CAM are scaled, and their differences with them; boxes follow from them.
SCALED, FOLLOWING = ("map", 100), ("box",)


def check_agreement(answers, model, spec, loaded):
    """Raises if a SavedModel disagrees with what it was made from.

    Args:
        answers: Dict from the names of its signatures to functions, from float32 images
            to a dict of outputs.
        model: The Keras model in it.
        spec: Its `ImageSpec`.
        loaded: The SavedModel, as `tf.saved_model.load` gives it.

    Raises:
        ValueError: If the outputs' names or values differ, see `check_outputs`.
    """
    import tensorflow as tf

    images = example_images(spec)
    pixels = tf.cast(images, tf.float32)
    encoded = tf.stack([tf.io.encode_png(image) for image in tf.unstack(images)])
    expected = {}
    for name, answer in answers.items():
        signature = loaded.signatures[name]
        given = {input_of(name): pixels if name == PIXELS else encoded}
        if LABEL in signature.structured_input_signature[1]:
            given[LABEL] = tf.fill((len(images),), -1)
        received = run_once(repr(name), functools.partial(signature, **given))
        # Signatures share functions.
        if answer not in expected:
            expected[answer] = answer(pixels)
        check_outputs(repr(name), answer, expected[answer], received, model, pixels)


def run_once(what, function):
    """The outputs of an export, or a ValueError of one line if it cannot be run."""
    try:
        return function()
    except Exception as error:
        reason = f"{type(error).__name__} {str(error).strip()}".splitlines()[0]
        raise ValueError(
            f"Expected {what} to run as the model does. Received: {reason[:200]}. "
            "Nothing was written."
        ) from error


def check_outputs(what, answer, expected, received, model, pixels):
    """Raises if the outputs of an export differ from those of a Keras model.

    Exact values (whole numbers, truth values, texts) must be equal, real numbers close.
    Where a localiser finds two places equally good, rounding decides, and patches and
    all that follows from them may differ between two correct computations. So an image
    whose exact answers differ from those that Keras computes step by step may agree
    with Keras's compiled graph instead.

    Args:
        what: Name of the export, for the message.
        answer: Function from float32 images to the dict of outputs that is exported.
        expected: Its answers for `pixels`.
        received: The export's answers for them.
        model: The Keras model in it.
        pixels: `(examples, height, width, 3)`, float32.

    Raises:
        ValueError: If the outputs' names or values differ.
    """
    import tensorflow as tf

    received = {name: tf.convert_to_tensor(value) for name, value in received.items()}
    if set(received) != set(expected):
        raise ValueError(
            f"Expected the outputs {sorted(expected)} of the export. "
            f"Received: {sorted(received)} from {what}"
        )
    if any("seed_generator_state" in each.path for each in model.variables):
        # Some draw random numbers at inference too, and answer differently every time.
        again = answer(pixels)
        if any(np.any(again[name] != value) for name, value in expected.items()):
            return
    policies = {layer.dtype_policy.name for layer in layers_of(model, True)}
    tolerance = max(TOLERANCE.get(policy, 1e-4) for policy in policies)
    differs = _differences(expected, received, tolerance)
    flipped = np.any([differs[name] for name in _exact(expected)], axis=0)
    if np.any(flipped):
        compiled = tf.function(answer)(pixels)
        again = _differences(compiled, received, tolerance)
        differs = {
            name: np.where(flipped, again[name], values)
            for name, values in differs.items()
        }
    _refuse(what, differs, expected, received)


def _exact(outputs):
    return [
        name
        for name, value in outputs.items()
        if not _is_real(value) and name not in FOLLOWING
    ]


def _is_real(value):
    return value.dtype.is_floating


def _differences(expected, received, tolerance):
    """Booleans for each output: the images for which it differs."""
    return {
        name: _differs(
            value, received[name], tolerance * (SCALED[1] if name == SCALED[0] else 1)
        )
        for name, value in expected.items()
        if name not in FOLLOWING
    }


def _differs(expected, received, tolerance):
    if expected.shape != received.shape or expected.dtype != received.dtype:
        return np.ones(len(expected), bool)
    if _is_real(expected):
        # Written so that NaN differs.
        differs = ~(_distance(expected, received) <= tolerance * _scale(expected))
    else:
        differs = expected.numpy() != received.numpy()
    return differs.reshape(len(expected), -1).any(axis=1)


def _distance(expected, received):
    return np.abs(_float64(received) - _float64(expected))


def _scale(expected):
    return max(LEAST_SCALE, np.max(np.abs(_float64(expected)), initial=0.0))


def _float64(tensor):
    return np.asarray(tensor).astype("float64")


def _refuse(what, differs, expected, received):
    for name, images in differs.items():
        if not images.any():
            continue
        found = "different"
        if _is_real(expected[name]) and expected[name].shape == received[name].shape:
            worst = _distance(expected[name], received[name])[images].max()
            found = f"off by {worst:.2g}, of at most {_scale(expected[name]):.2g}"
        raise ValueError(
            f"The export disagrees with the model: {name} of {what} is {found}. "
            "Nothing was written."
        )
