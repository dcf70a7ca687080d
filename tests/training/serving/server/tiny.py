"""SavedModels that are written in a second, and servers in a thread of the test."""

import contextlib
import functools
import io
import pathlib
import shutil
import tempfile
import time

import grpc
import numpy as np
import requests
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import (
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from keras_attn.training.serving.server import server
from keras_attn.training.serving.server.settings import Settings

CLASSES = ("dark", "light")


class Tiny(tf.Module):
    """Signatures of several kinds; numbers are multiplied by `factor`."""

    def __init__(self, factor):
        self.factor = tf.Variable(float(factor))

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "image_bytes")])
    def classify(self, image_bytes):
        def mean(data):
            image = tf.io.decode_image(data, 3, expand_animations=False)
            return tf.reduce_mean(tf.cast(image, tf.float32)) / 255

        light = tf.map_fn(mean, image_bytes, fn_output_signature=tf.float32)
        probabilities = tf.stack([1 - light, light], axis=-1)
        names = tf.gather(CLASSES, tf.argmax(probabilities, axis=-1))
        return {"probabilities": probabilities, "class": names}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, "x")])
    def half_plus(self, x):
        return {"y": self.factor * x / 2 + 3}

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, 2), tf.float32, "signal"),
            tf.TensorSpec((None,), tf.int64, "count"),
        ]
    )
    def two(self, signal, count):
        return {"total": tf.reduce_sum(signal, 1), "twice": 2 * count}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "text")])
    def echo(self, text):
        return {"text": text, "raw_bytes": text}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, "x")])
    def explain(self, x):
        return {"map": x, "box": 2 * x}

    @tf.function(
        input_signature=[
            tf.TensorSpec((None,), tf.float32, "x"),
            tf.TensorSpec((None,), tf.int32, "label"),
        ]
    )
    def explain_class(self, x, label):
        return {"map": x, "label_given": label}

    @tf.function(input_signature=[tf.TensorSpec((2, 3), tf.float32, "matrix")])
    def fixed(self, matrix):
        return {"mean": tf.reduce_mean(matrix), "row": matrix[0]}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.int32, "steps")])
    def slow(self, steps):
        value = tf.ones((64, 64))
        for _ in tf.range(tf.reduce_max(steps)):
            value = tf.linalg.l2_normalize(tf.matmul(value, value))
        return {"done": tf.cast(steps, tf.float32) + 0 * value[0, 0]}


def save(folder, factor=1.0):
    """Writes a `Tiny` SavedModel; a second one of a factor is a copy of the first."""
    shutil.copytree(pathlib.Path(_saved(factor).name) / "model", folder)
    return folder


@functools.cache
def _saved(factor):
    holder = tempfile.TemporaryDirectory()
    tiny = Tiny(factor)
    signatures = {
        "serving_default": tiny.classify,
        **{
            name: getattr(tiny, name)
            for name in (
                *("half_plus", "two", "echo", "fixed", "slow"),
                *("explain", "explain_class"),
            )
        },
    }
    tf.saved_model.save(tiny, f"{holder.name}/model", signatures)
    return holder


def encoded(light, height=5, width=7, kind="PNG"):
    """An image file of one grey, 0..255."""
    file = io.BytesIO()
    pixels = np.full((height, width, 3), light, "uint8")
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def until(condition, seconds=60):
    """Waits for what another thread or process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "It did not happen"
        time.sleep(0.005)


class Running:
    """A server that listens, and the ways to ask it."""

    def __init__(self, server, lines):
        self.server = server
        self.lines = lines
        self.url = f"http://127.0.0.1:{server.rest_port}"
        self.address = f"127.0.0.1:{server.port}"
        self.channel = grpc.insecure_channel(self.address)
        self.predictions = prediction_service_pb2_grpc.PredictionServiceStub(
            self.channel
        )
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def post(self, path, **options):
        return requests.post(f"{self.url}/v1/models/{path}", timeout=60, **options)

    def get(self, path):
        return requests.get(f"{self.url}{path}", timeout=60)

    def predict(self, name, signature="", version=None, filters=(), **inputs):
        """Outputs over gRPC, as arrays."""
        request = predict_pb2.PredictRequest(output_filter=filters)
        request.model_spec.name = name
        request.model_spec.signature_name = signature
        if version is not None:
            request.model_spec.version.value = version
        for key, value in inputs.items():
            if not hasattr(value, "tensor_shape"):
                value = tf.make_tensor_proto(value)
            request.inputs[key].CopyFrom(value)
        response = self.predictions.Predict(request, timeout=60)
        return {key: tf.make_ndarray(value) for key, value in response.outputs.items()}


@contextlib.contextmanager
def running(folder, **changes):
    """Runs a server in a thread with an event loop of its own."""
    settings = Settings(
        folder, **{"port": 0, "rest_port": 0, "poll_seconds": 0.1, **changes}
    )
    lines = []
    with server.running(settings, lines.append) as found:
        client = Running(found, lines)
        try:
            yield client
        finally:
            client.channel.close()
