import keras
import numpy as np
import pytest
from keras import layers

from keras_attn.graph.calibration import estimate_margin_and_scale
from tests.harness import to_numpy

STATISTICS = {
    "first": {  # the third channel is dead, the fourth has a margin of zero
        "gamma": [0.5, -2.0, 1e-6, 1.0],
        "beta": [0.3, 0.4, 5.0, 0.0],
        "moving_mean": [1.0, -0.5, 9.0, 0.0],
        "moving_variance": [0.25, 4.0, 1.0, 1.0],
    },
    "second": {
        "gamma": [1.5, 0.7],
        "beta": [-0.2, 0.1],
        "moving_mean": [0.6, 0.2],
        "moving_variance": [2.0, 0.5],
    },
}


def set_statistics(layer):
    for name, values in STATISTICS[layer.name].items():
        getattr(layer, name).assign(values)


def small_model(relu=None):
    """Pre-activation, 3x3, "first", 1x1, "inner", 3x3 stride 2, "second", "bare"."""
    relu = relu or [layers.ReLU(), layers.Activation("relu"), keras.ops.relu]
    inputs = keras.Input((7, 5, 3))
    x = relu[0](layers.BatchNormalization(name="outer")(inputs))
    x = layers.Conv2D(4, 3, padding="same")(x)
    x = relu[1](layers.BatchNormalization(name="first", epsilon=0.01)(x))
    x = layers.Conv2D(4, 1)(x)
    x = layers.ReLU()(layers.BatchNormalization(name="inner")(x))
    x = layers.Conv2D(2, 3, strides=2, padding="same")(x)
    x = relu[2](layers.BatchNormalization(name="second")(x))
    x = layers.Conv2D(2, 3, padding="same")(x)
    x = layers.BatchNormalization(name="bare")(x)
    model = keras.Model(inputs, {"logits": layers.GlobalAveragePooling2D()(x)})
    for name in STATISTICS:
        set_statistics(model.get_layer(name))
    return model


def expected_margins(name, epsilon):
    gamma, beta, mean, variance = (
        np.array(STATISTICS[name][key])
        for key in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    margins = mean - beta * np.sqrt(variance + epsilon) / gamma
    return margins[:2]


def expected_scale(model, name, images, epsilon):
    layer = model.get_layer(name)
    before = keras.Model(model.input, layer.input)(images)
    gamma, beta, mean, variance = (
        np.array(STATISTICS[name][key])
        for key in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    normalized = (to_numpy(before) - mean) / np.sqrt(variance + epsilon) * gamma + beta
    return np.maximum(normalized, 0).sum(axis=-1).mean()


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(0, 2, (11, 7, 5, 3)).astype("float32")


def test_default_takes_what_stands_between_a_3x3_convolution_and_a_relu(images):
    model = small_model()
    margin, scale = estimate_margin_and_scale(model, images, batch_size=4)
    margins = [expected_margins("first", 0.01), expected_margins("second", 1e-3)]
    np.testing.assert_allclose(margin, np.concatenate(margins).mean(), rtol=1e-5)
    scales = [
        expected_scale(model, "first", images, 0.01),
        expected_scale(model, "second", images, 1e-3),
    ]
    np.testing.assert_allclose(scale, np.mean(scales), rtol=1e-5)


def test_named_layers(images):
    model = small_model()
    margin, scale = estimate_margin_and_scale(model, images, ["second"])
    np.testing.assert_allclose(margin, expected_margins("second", 1e-3).mean())
    expected = expected_scale(model, "second", images, 1e-3)
    np.testing.assert_allclose(scale, expected, rtol=1e-5)


def test_layers_without_gamma_and_beta(images):
    inputs = keras.Input((7, 5, 3))
    plain = layers.BatchNormalization(center=False, scale=False)
    model = keras.Model(inputs, layers.ReLU()(plain(layers.Conv2D(2, 3)(inputs))))
    plain.moving_mean.assign([0.5, 1.5])
    assert estimate_margin_and_scale(model, images)[0] == pytest.approx(1.0)


def test_other_activations_are_no_relu(images):
    gelu = layers.Activation("gelu")
    model = small_model([layers.ReLU(), gelu, layers.ReLU()])
    margin, _ = estimate_margin_and_scale(model, images)
    np.testing.assert_allclose(margin, expected_margins("second", 1e-3).mean())


def test_errors(images):
    inputs = keras.Input((7, 5, 3))
    without = keras.Model(inputs, layers.Conv2D(2, 3)(inputs))
    with pytest.raises(ValueError, match="Expected a model with BatchNormalization"):
        estimate_margin_and_scale(without, images)
    with pytest.raises(ValueError, match="Received: 'conv', which is None"):
        estimate_margin_and_scale(small_model(), images, ["conv"])
    with pytest.raises(ValueError, match="Expected trained .*'inner'"):
        estimate_margin_and_scale(small_model(), images, ["inner"])
    with pytest.raises(ValueError, match="Expected a functional Keras model"):
        estimate_margin_and_scale(layers.ReLU(), images)
