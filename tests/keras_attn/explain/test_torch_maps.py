"""Maps against those of captum and pytorch-grad-cam, with the same weights.

They run in a process of their own, since TensorFlow and torch do not always share one;
`CAPTUM_PYTHON` may name the interpreter of another environment.
"""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_attn import explain
from tests.harness import to_numpy
from tests.test_architecture import ROOT

SCRIPT = ROOT / "tests" / "reference" / "torch_maps.py"
SAMPLES, NOISE, SEED = 3, 0.1, 4


@pytest.fixture(scope="module")
def model():
    inputs = keras.Input((6, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    x = layers.Conv2D(5, 3, padding="same", activation="relu", name="features")(x)
    x = ops.mean(ops.max(x, axis=2), axis=1)
    x = layers.Dense(7, activation="tanh")(x)
    model = keras.Model(inputs, layers.Dense(6)(x))
    random = np.random.default_rng(0)
    model.set_weights([0.4 * random.standard_normal(w.shape) for w in model.weights])
    return model


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).uniform(0.1, 1, (2, 6, 8, 3)).astype("float32")


@pytest.fixture(scope="module")
def theirs(model, images, tmp_path_factory):
    python = os.environ.get("CAPTUM_PYTHON", sys.executable)
    command = [python, "-c", "import captum, pytorch_grad_cam"]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("captum and pytorch-grad-cam are not installed")
    folder = tmp_path_factory.mktemp("captum")
    random = np.random.default_rng(SEED)
    spread = NOISE * np.ptp(images, axis=(1, 2, 3), keepdims=True)
    noisy = [
        images + spread * random.standard_normal(images.shape) for _ in range(SAMPLES)
    ]
    given = {f"weight_{i}": weight for i, weight in enumerate(model.get_weights())}
    given |= {"images": images, "labels": [1, 4], "noisy": np.float32(noisy)}
    np.savez(folder / "given.npz", **given)
    command = [python, SCRIPT, folder / "given.npz", folder / "found.npz"]
    subprocess.run(command, check=True)
    return np.load(folder / "found.npz")


# The features are as large as the images, so that none of both interpolates.
@pytest.mark.parametrize(
    "method",
    ["grad_cam", "grad_cam_plus_plus", "hires_cam", "layer_cam", "score_cam"],
)
def test_maps_of_features(theirs, model, images, method):
    ours = to_numpy(getattr(explain, method)(model, images, "features", [1, 4]))
    # Theirs adds 1e-6 to the denominator of Grad-CAM++.
    atol = 1e-2 if method == "grad_cam_plus_plus" else 1e-4
    np.testing.assert_allclose(ours, theirs[method], atol=atol)
    assert ours.std() > 0.05


def test_finer_cam(theirs, model, images):
    ours = to_numpy(explain.grad_cam(model, images, "features", against="nearest"))
    np.testing.assert_allclose(ours, theirs["finer_cam"], atol=1e-4)
    plain = to_numpy(explain.grad_cam(model, images, "features"))
    assert np.abs(ours - plain).max() > 0.1


def test_maps_of_pixels(theirs, model, images):
    ours = explain.integrated_gradients(model, images, [1, 4], 0.2, 6, raw=True)
    wanted = theirs["integrated_gradients"]
    np.testing.assert_allclose(to_numpy(ours), wanted, atol=1e-5)
    ours = explain.smooth_grad(
        model, images, [1, 4], SAMPLES, NOISE, raw=True, seed=SEED
    )
    np.testing.assert_allclose(to_numpy(ours), theirs["smooth_grad"], atol=1e-5)
    assert wanted.std() > 1e-3
