"""Integrated gradients and SmoothGrad, by what is known of them."""

import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_attn.explain import integrated_gradients, passes, score_cam, smooth_grad
from tests.harness import to_numpy


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).uniform(0, 1, (2, 4, 6, 3)).astype("float32")


@pytest.fixture(scope="module")
def model():
    inputs = keras.Input((4, 6, 3))
    x = layers.Conv2D(4, 3, activation="tanh")(inputs)
    x = layers.Dense(5)(layers.Flatten()(x))
    model = keras.Model(inputs, x)
    random = np.random.default_rng(0)
    model.set_weights([0.3 * random.standard_normal(w.shape) for w in model.weights])
    return model


def test_shares_sum_to_the_difference_of_scores(model, images):
    baseline = np.array([0.5, 0.2, 0.1], "float32")
    raw = to_numpy(
        integrated_gradients(model, images, [[3, 0], [1, 2]], baseline, 24, raw=True)
    )
    black = np.broadcast_to(baseline, images.shape)
    rise = to_numpy(model(images)) - to_numpy(model(black))
    wanted = np.take_along_axis(rise, np.array([[3, 0], [1, 2]]), axis=1)
    np.testing.assert_allclose(raw.sum(axis=(2, 3)), wanted, atol=1e-3)
    assert np.abs(wanted).max() > 0.1
    maps = to_numpy(integrated_gradients(model, images, target=1, steps=2))
    assert maps.shape == (2, 4, 6) and maps.min() == 0 and maps.max() == 1


def test_the_mean_slope_of_a_square_is_that_at_the_mean(images):
    inputs = keras.Input((4, 6, 3))
    model = keras.Model(inputs, layers.Flatten()(ops.square(inputs)))
    # The noise of the first image's fifth value, as it is drawn.
    random = np.random.default_rng(7)
    spread = 0.2 * np.ptp(images, axis=(1, 2, 3), keepdims=True)
    noise = [spread * random.standard_normal(images.shape) for _ in range(3)]
    wanted = 2 * (images + np.mean(noise, axis=0))[:, 0, 1, 1]
    found = to_numpy(smooth_grad(model, images, None, 3, 0.2, True, 7, target=4))
    np.testing.assert_allclose(found[:, 0, 1], np.abs(wanted), rtol=1e-4)
    found[:, 0, 1] = 0
    assert found.max() == 0


@pytest.mark.parametrize(
    "method, number",
    [
        (integrated_gradients, {"steps": 8}),
        (smooth_grad, {"samples": 8}),
        (score_cam, {}),
    ],
)
def test_several_versions_in_a_compiled_pass(
    model, images, method, number, monkeypatch
):
    calls, options = [], {"labels": [[3, 0], [1, 2]], "raw": True, **number}
    monkeypatch.setattr(passes, "WORTH_COMPILING", 1)
    found = method(model, images, **options, progress=lambda *call: calls.append(call))
    assert calls[0][0] > 2 and calls[-1][0] == calls[-1][1]
    monkeypatch.setattr(passes, "WORTH_COMPILING", 1000)
    monkeypatch.setattr(passes, "SLOPED", 1)
    # The package has the function by the module's name.
    monkeypatch.setattr(sys.modules["keras_attn.explain.score_cam"], "SCORED", 1)
    wanted = method(model, images, **options)
    np.testing.assert_allclose(to_numpy(found), to_numpy(wanted), atol=1e-5)
    assert np.ptp(to_numpy(wanted)) > 1e-3


def test_other_inputs_stay_those_of_each_image(images):
    numbers = keras.Input((1,))
    inputs = keras.Input((4, 6, 3))
    x = layers.Flatten()(layers.Conv2D(4, 3, activation="tanh")(inputs))
    model = keras.Model([inputs, numbers], layers.Dense(3)(x) * numbers)
    given = [images, np.array([[1.0], [0.0]], "float32")]
    with pytest.warns(UserWarning, match="image 1"):
        maps = to_numpy(integrated_gradients(model, given, target=1, raw=True))
    assert maps[0].any() and not maps[1].any()


def test_what_does_not_fit_is_refused(model, images):
    with pytest.raises(ValueError, match=r"`baseline`.*\(2,\)"):
        integrated_gradients(model, images, baseline=[1, 2])
    with pytest.raises(ValueError, match="steps"):
        integrated_gradients(model, images, steps=0)
    with pytest.raises(ValueError, match="noise"):
        smooth_grad(model, images, noise=2)
    inputs = keras.Input((4, 6, 3), dtype="uint8")
    bytes_in = keras.Model(inputs, model(ops.cast(inputs, "float32")))
    with pytest.raises(ValueError, match="floating point.*uint8"):
        smooth_grad(bytes_in, images)
