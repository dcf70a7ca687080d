"""Images per second of AnchorNet at 224 x 224, from image to class and evidence."""

import statistics

import keras
import numpy as np

from benchmarks import measure
from keras_attn.models import anchornet

BATCH_SIZE = 16
IMAGE_SIZE = 224


def run(quick):
    """Measurements of every way to run it that the backend has."""
    backend = keras.backend.backend()
    model = anchornet((IMAGE_SIZE, IMAGE_SIZE, 3), num_classes=1000)
    shape = (BATCH_SIZE, IMAGE_SIZE, IMAGE_SIZE, 3)
    images = np.random.default_rng(0).normal(size=shape).astype("float32")
    images = keras.ops.convert_to_tensor(images)
    functions = {
        xla: _call(function, images) for xla, function in WAYS[backend](model).items()
    }
    seconds = measure.interleaved(functions, 3 if quick else 9)
    return [
        measure.Measurement(
            "anchornet, batch 16",
            BATCH_SIZE / statistics.median(times),
            "images/s",
            measure.median_ratio(seconds["off"], times),
            xla,
        )
        for xla, times in seconds.items()
    ]


def _call(function, images):
    def call():
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
