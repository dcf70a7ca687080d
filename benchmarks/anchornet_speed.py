"""Images per second of AnchorNet at 224 x 224, from image to class and evidence."""

import contextlib
import statistics
from unittest import mock

import keras
import numpy as np

from benchmarks import measure
from keras_attn.layers import _folding
from keras_attn.models import anchornet, anchornet95

BATCH_SIZE = 16
IMAGE_SIZE = 224
CLASSES = 1000


def run(quick):
    """Measurements of every way to run the networks that the backend has."""
    shape = (IMAGE_SIZE, IMAGE_SIZE, 3)
    size = (BATCH_SIZE, *shape)
    images = np.random.default_rng(0).normal(size=size).astype("float32")
    images = keras.ops.convert_to_tensor(images)
    cases = {"anchornet, batch 16": anchornet(shape, CLASSES)}
    if not quick:
        cases["anchornet95, folded"] = anchornet95(CLASSES, shape, folded=True)
    return [
        row for case, model in cases.items() for row in rows(case, model, images, quick)
    ]


def rows(case, model, images, quick):
    """Measurements of one network, and of it with Keras's own convolutions."""
    backend = keras.backend.backend()
    functions = {
        xla: _call(function, images) for xla, function in WAYS[backend](model).items()
    }
    if backend != "tensorflow":
        xla, function = next(iter(WAYS[backend](model).items()))
        functions["keras"] = _call(function, images, keras_convolutions)
    seconds = measure.interleaved(functions, 3 if quick else 9)
    return [
        measure.Measurement(
            case + ", Keras's convolutions" * (way == "keras"),
            BATCH_SIZE / statistics.median(times),
            "images/s",
            measure.median_ratio(seconds[xla if way == "keras" else "off"], times),
            xla if way == "keras" else way,
        )
        for way, times in seconds.items()
    ]


@contextlib.contextmanager
def keras_convolutions():
    """Context in which bottlenecks convolve as Keras does."""
    with (
        mock.patch.object(_folding, "conv", keras.ops.conv),
        mock.patch.object(_folding, "depthwise_conv", keras.ops.depthwise_conv),
    ):
        yield


def _call(function, images, context=contextlib.nullcontext):
    def call():
        with context():
            measure.wait_for(function(images)["logits"])

    return call


def _tensorflow(model):
    import tensorflow as tf

    def call(images):
        return model(images, training=False)

    return {
        "off": tf.function(call),
        "on": tf.function(call, jit_compile=True),
    }


def _jax(model):
    import jax

    trainable = [variable.value for variable in model.trainable_variables]
    state = [variable.value for variable in model.non_trainable_variables]

    def call(images):
        return model.stateless_call(trainable, state, images, training=False)[0]

    return {"on": jax.jit(call), "off": call}


def _torch(model):
    import torch

    def call(images):
        with torch.no_grad():
            return model(images, training=False)

    return {"off": call}


WAYS = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
