"""HiResCAM, LayerCAM and Score-CAM, by what is known of them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_attn.explain import grad_cam, hires_cam, layer_cam, score_cam, targets
from keras_attn.explain.maps import scaled
from tests.harness import to_numpy


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).uniform(0, 1, (2, 6, 8, 3)).astype("float32")


def network(pool):
    inputs = keras.Input((6, 8, 3))
    x = layers.Conv2D(3, 2, 2, activation="relu", name="features")(inputs)
    x = layers.GlobalAveragePooling2D()(x) if pool else layers.Flatten()(x)
    model = keras.Model(inputs, layers.Dense(5, activation="softmax", name="end")(x))
    random = np.random.default_rng(0)
    model.set_weights([random.standard_normal(w.shape) for w in model.weights])
    return model


def features_of(model, images):
    inner = keras.Model(model.input, model.get_layer("features").output)
    return to_numpy(inner(images)).astype("float64")


def test_hires_cam_is_grad_cam_behind_a_mean(images):
    model = network(pool=True)
    wanted = to_numpy(grad_cam(model, images, target=[0, 3], raw=True))
    found = to_numpy(hires_cam(model, images, target=[0, 3], raw=True))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert wanted.std() > 0.01


def test_of_a_linear_layer_behind_the_cells(images):
    model = network(pool=False)
    features = features_of(model, images)
    kernel = model.get_layer("end").get_weights()[0].reshape(3, 4, 3, 5)[..., 2]
    wanted = np.maximum((kernel * features).sum(axis=-1), 0)
    found = to_numpy(hires_cam(model, images, target=2, raw=True))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    wanted = np.maximum((np.maximum(kernel, 0) * features).sum(axis=-1), 0)
    found = to_numpy(layer_cam(model, images, target=2, raw=True))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_score_cam(images):
    model = network(pool=False)
    features = features_of(model, images)
    logits = keras.Model(model.input, model.layers[-2].output)
    kernel, bias = model.get_layer("end").get_weights()
    scores = []
    for channel in range(3):
        mask = features[..., channel : channel + 1].astype("float32")
        mask = to_numpy(scaled(ops.image.resize(mask, (6, 8), "bilinear")))
        scores.append((to_numpy(logits(images * mask)) @ kernel + bias)[:, 2])
    weights = np.exp(scores) / np.exp(scores).sum(axis=0)
    wanted = np.maximum(np.einsum("brck,kb->brc", features, weights), 0)
    found = to_numpy(score_cam(model, images, target=2, raw=True))
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_finer_cam_without_strength_is_grad_cam(images, monkeypatch):
    model = network(pool=True)
    wanted = to_numpy(grad_cam(model, images, target=1, raw=True))
    found = to_numpy(grad_cam(model, images, target=1, against="nearest", raw=True))
    assert np.abs(found - wanted).max() > 0.01
    monkeypatch.setattr(targets, "STRENGTH", 0.0)
    found = to_numpy(grad_cam(model, images, target=1, against="nearest", raw=True))
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_finer_cam_against_one_class_is_the_map_of_the_difference(images):
    model = network(pool=True)
    features = features_of(model, images)
    kernel = model.get_layer("end").get_weights()[0]
    wanted = np.maximum(features @ (kernel[:, 1] - kernel[:, 4]), 0) / 12
    found = to_numpy(grad_cam(model, images, target=1, against=4, raw=True))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    for against in ("next", 5, 1.5):
        with pytest.raises(ValueError, match=f"`against`.*{against}"):
            grad_cam(model, images, against=against)
