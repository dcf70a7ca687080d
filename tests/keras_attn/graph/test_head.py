"""The end of a classifier, known by what it does."""

import functools

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_attn.graph.flat import FlatGraph, run
from keras_attn.graph.head import head_of, leave_out_activation, linear_part, output_key
from tests.harness import change, to_numpy


def model_of(end, units=5):
    """A Dense layer and what a function puts behind it; its kernel is known."""
    inputs = keras.Input((3,))
    options = {"kernel_initializer": keras.initializers.RandomNormal(seed=1)}
    return keras.Model(inputs, end(inputs, units, options))


def dense(activation):
    return lambda x, units, options: layers.Dense(units, activation, **options)(x)


def behind(layer):
    return lambda x, units, options: layer(layers.Dense(units, **options)(x))


def nested(x, units, options):
    inner = keras.Input((3,))
    head = keras.Model(inner, layers.Dense(units, "softmax", **options)(inner))
    return layers.Dropout(0.5)(head(x))


def flattened(x, units, options):
    x = layers.Reshape((1, 1, 3))(x)
    return layers.Flatten()(layers.Conv2D(units, 1, activation="softmax", **options)(x))


def spectral(x, units, options):
    inner = layers.Dense(units, "softmax", **options)
    return layers.SpectralNormalization(inner)(x)


def untruthful(x):
    return ops.sigmoid(x)


untruthful.__name__ = "softmax"
ENDS = {
    "softmax": (dense("softmax"), "softmax"),
    "partial": (dense(functools.partial(ops.softmax, axis=-1)), "softmax"),
    "lambda": (dense(lambda x: ops.softmax(x, axis=-1)), "softmax"),
    "temperature": (dense(lambda x: ops.softmax(x / 2)), "softmax"),
    "layer": (behind(layers.Softmax()), "softmax"),
    "activation": (behind(layers.Activation("softmax")), "softmax"),
    "operation": (behind(lambda x: ops.softmax(x)), "softmax"),
    "log_softmax": (dense("log_softmax"), "log_softmax"),
    "nested": (nested, "softmax"),
    "convolution": (flattened, "softmax"),
    "wrapped": (spectral, "softmax"),
    "sigmoid": (dense("sigmoid"), "sigmoid"),
    "name": (dense(untruthful), "sigmoid"),
    "log_sigmoid": (dense("log_sigmoid"), "log_sigmoid"),
    "linear": (dense(None), "logits"),
    "relu": (dense("relu"), None),
    "columns": (behind(lambda x: ops.softmax(x, axis=0)), None),
}


@pytest.mark.parametrize("end, kind", ENDS.values(), ids=ENDS)
def test_its_kind_is_what_it_does_and_its_logits_are_before_it(end, kind):
    model = model_of(end)
    graph = FlatGraph(model)
    head = head_of(graph, output_key(graph, None))
    assert (head.kind, head.scores) == (kind, 5)
    if head.bare:
        leave_out_activation(graph, head.key)
    x = np.random.default_rng(0).standard_normal((2, 3)).astype("float32")
    values = graph.input_values(x)
    found = run(graph.steps_to([head.key], graph.inputs), values, [head.key])
    kernel = next(each for each in model.get_weights() if each.size == 15)
    wanted = x @ kernel.reshape(3, 5)
    if kind is None:
        wanted = to_numpy(model(x))
    found = to_numpy(found[head.key]).reshape(wanted.shape)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    # The model is as before.
    if kind == "softmax":
        np.testing.assert_allclose(to_numpy(model(x)).sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("units", [1, 2, 1000])
@pytest.mark.parametrize("kind", ["softmax", "sigmoid", "log_sigmoid"])
def test_any_number_of_scores(units, kind):
    graph = FlatGraph(model_of(dense(kind), units))
    assert head_of(graph, output_key(graph, None)).kind == kind


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="no tf.nn here")
def test_functions_of_the_backend_count():
    tensorflow = pytest.importorskip("tensorflow")
    graph = FlatGraph(model_of(dense(tensorflow.nn.softmax)))
    assert head_of(graph, output_key(graph, None)).kind == "softmax"


@pytest.mark.parametrize("kind", ["plain", "lora", "int8", "int4", "float8"])
def test_the_linear_part_is_that_of_the_layer_as_it_computes(kind):
    keras.utils.set_random_seed(0)
    layer = layers.Dense(4, "softmax", bias_initializer="ones")
    layer.build((None, 6))
    if kind != "plain":
        change(layer, kind)
    x = np.random.default_rng(0).standard_normal((3, 6)).astype("float32")
    found, bias = map(to_numpy, linear_part(layer)(x))
    shares = np.exp(found + bias)
    shares /= shares.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares, to_numpy(layer(x)), atol=1e-5)
    np.testing.assert_allclose(bias, np.ones((1, 4)), atol=1e-6)
