"""The outputs of a model, in scores and probabilities."""

import keras
import numpy as np


def with_outputs(model, names):
    """The model with some of its outputs, weights shared; the rest is not computed.

    Args:
        model: Functional model with a dict of outputs.
        names: Names of outputs; those that the model does not have are left out.
    """
    kept = {name: model.output[name] for name in names if name in model.output}
    if len(kept) == len(model.output):
        return model
    return keras.Model(model.input, kept, name=model.name)


def outputs_of(model, images, batch_size=128, names=None):
    """Named outputs of the model.

    Args:
        model: Model with a dict of outputs.
        images: `(examples, height, width, 3)`, raw pixels of the model's size; of a
            model with several inputs a dict of them.
        batch_size: Images at a time.
        names: Outputs to compute, see `with_outputs`; `None`: all.

    Returns:
        Dict of NumPy arrays; real numbers in float32.

    Raises:
        ValueError: If the images do not fit the model, or an output is not finite.
    """
    if isinstance(images, dict):
        images = {name: np.asarray(given) for name, given in images.items()}
    else:
        images = np.asarray(images)
    for given in keras.tree.flatten(images):
        _check_shape(given, model.inputs[0].shape[1:])
    if names is not None:
        model = with_outputs(model, names)
    outputs = model.predict(images, batch_size=batch_size, verbose=0)
    outputs = {name: _array(value) for name, value in outputs.items()}
    for name, value in outputs.items():
        if not np.isfinite(value).all():
            raise ValueError(
                f"Expected finite outputs. Received: NaN or infinite {name} from "
                f"{model.name!r}; its training diverged."
            )
    return outputs


def _check_shape(images, expected):
    if images.ndim != 4 or not _fits(images.shape[1:], expected):
        sizes = ", ".join("any" if size is None else str(size) for size in expected)
        raise ValueError(
            f"Expected images of shape (examples, {sizes}). Received: {images.shape}"
        )


def _fits(shape, expected):
    """True if a shape is the expected one, where `None` stands for any size."""
    return all(
        size is None or size == found
        for found, size in zip(shape, expected, strict=True)
    )


def _array(value):
    value = np.asarray(value)
    # Whole numbers and booleans stay exact; NumPy itself has no bfloat16.
    return value if value.dtype.kind in "biu" else value.astype("float32")


def top_classes(scores, count):
    """Labels of the highest of scores `(..., classes)`, `count` in falling order.

    Of equal scores the first class wins, as in `argmax`.
    """
    return np.argsort(-np.asarray(scores), axis=-1, kind="stable")[..., :count]


def sigmoid(logits):
    """Sigmoid, in float64."""
    return np.exp(-np.logaddexp(0, -np.asarray(logits, "float64")))


def softmax(logits):
    """Softmax over the last axis, in float64."""
    return np.exp(log_softmax(logits))


def log_softmax(logits):
    """Logarithm of the softmax over the last axis, in float64."""
    logits = np.asarray(logits, "float64")
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
