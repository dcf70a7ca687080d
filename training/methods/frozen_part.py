"""The features of a network's frozen part, computed once, and the rest behind them."""

import sys

import keras
import numpy as np

from keras_attn.graph.flat import FlatGraph, run
from keras_attn.graph.head import output_key, producer
from keras_attn.pipelines.batches import build
from keras_attn.training.runs import hosts

BATCH = 64
# Decays that a linear head is tried with, as long as each does better.
DECAYS = (0.3, 0.1, 0.03, 0.01, 0.003)
# Examples that a linear head is fitted to, where there are more.
MOST = 20_000


class FrozenPart:
    """A model cut in front of its first new layer.

    Args:
        model: Model with a flat graph, from images to `logits` and further outputs.
        new: Names of its new layers, `logits` among them.

    Attributes:
        places: Paths of the layers that the features come from.
        rest: Model from the features to the model's outputs; shares its layers.
        vectors: Model from the features to what the layer `logits` takes.
    """

    def __init__(self, model, new):
        graph = FlatGraph(model)
        names = [getattr(step.operation, "name", "") for step in graph.steps]
        first = min(names.index(name) for name in new if name in names)
        behind = graph.steps[first:]
        made = {key for step in behind for key in step.results}
        used = {key for step in behind for _, key in step.sources}
        keys = sorted({*used, *graph.outputs} - made)
        self.tensors = [graph.tensors[key] for key in keys]
        steps = [producer(graph, key) for key in keys]
        self.places = tuple(step and step.path for step in steps)
        self.body = keras.Model(model.input, self.tensors)
        inputs = [
            keras.Input(each.shape[1:], dtype=each.dtype) for each in self.tensors
        ]
        given = dict(zip(keys, inputs, strict=True))
        logits = producer(graph, output_key(graph, "logits"))
        vector = logits.sources[0][1]
        found = run(behind, given, [*graph.outputs, vector])
        outputs = dict(
            zip(
                sorted(model.output), (found[key] for key in graph.outputs), strict=True
            )
        )
        self.rest = keras.Model(inputs, outputs)
        self.vectors = keras.Model(inputs, found[vector])

    def size(self, examples):
        """Bytes of the features of some images."""
        cells = sum(np.prod(each.shape[1:]) for each in self.tensors)
        return 4 * int(cells) * examples

    def features(self, images, labels):
        """The features of images, a list of arrays."""
        shown = _Features(len(labels))

        def predict(own):
            batches = build.evaluation_batches(images[own], labels[own], BATCH)
            batches = batches.map(lambda images, labels: images)
            return self.body.predict(batches, verbose=0, callbacks=[shown])

        return hosts.group().rows(predict, len(labels))


class _Features(keras.callbacks.Callback):
    """The number of images whose features are known, on a terminal."""

    def __init__(self, count):
        super().__init__()
        self.count = count

    def on_predict_batch_end(self, batch, logs=None):
        done = min((batch + 1) * BATCH, self.count)
        _show(f"Features of the frozen network: {done} of {self.count} images")


class Passes(keras.callbacks.Callback):
    """The number of passes that trained what is new, on a terminal."""

    def __init__(self, count):
        super().__init__()
        self.count = count

    def on_epoch_end(self, epoch, logs=None):
        _show(f"New layers: {epoch + 1} of {self.count} passes")


def _show(text):
    if sys.stdout.isatty():
        print(f"{text}\033[K", end="\r", flush=True)


def fit_linear(features, labels, classes, steps, seed):
    """Multinomial regression with the decay of the least loss on a fifth held out.

    Accuracy on so few images would be a coarser judge.

    Kernel `(channels, classes)` and bias `(classes,)`, after `steps` of descent on
    features `(examples, channels)`. `seed` is that of the fifth, and of the examples
    where there are very many.
    """
    order = np.random.default_rng(seed).permutation(len(labels))[:MOST]
    x, y = features[order].astype("float32"), labels[order]
    mean = x.mean(axis=0)
    x -= mean
    scale = np.sqrt(np.mean(x**2)) + 1e-6
    x, targets = x / scale, np.eye(classes, dtype="float32")[y]
    held, kept = slice(0, len(y) // 5), slice(len(y) // 5, None)
    least, decay = np.inf, DECAYS[0]
    for each in DECAYS if len(y) >= 5 else ():
        kernel, bias = _descend(x[kept], targets[kept], steps, each)
        shares = _shares(x[held] @ kernel + bias)[targets[held] > 0]
        loss = -np.mean(np.log(shares + 1e-30))
        if loss > least:
            break
        least, decay = loss, each
    kernel, bias = _descend(x, targets, steps, decay)
    return kernel / scale, bias - mean @ kernel / scale


def _shares(scores):
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def _descend(x, targets, steps, decay):
    """Nesterov's accelerated descent of a strongly convex loss.

    The bias belongs to one more channel, which is 1 and does not decay.
    """
    x = np.concatenate([x, np.ones_like(x[:, :1])], axis=1)
    keep = np.full((x.shape[1], 1), decay, "float32")
    keep[-1] = 0
    # The greatest eigenvalue bounds the curvature of the cross-entropy by its half.
    vector = np.ones(x.shape[1], "float32")
    for _ in range(10):
        vector = x.T @ (x @ (vector / np.linalg.norm(vector))) / len(x)
    curvature = 0.55 * np.linalg.norm(vector) + decay
    ratio = np.sqrt(decay / curvature)
    momentum = np.float32((1 - ratio) / (1 + ratio))
    ahead = weights = np.zeros((x.shape[1], targets.shape[1]), "float32")
    for _ in range(steps):
        gradient = x.T @ (_shares(x @ ahead) - targets) / len(x) + keep * ahead
        new = ahead - gradient / np.float32(curvature)
        ahead, weights = new + momentum * (new - weights), new
    return weights[:-1], weights[-1]
