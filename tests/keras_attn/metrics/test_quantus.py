"""Metrics of maps against Quantus, on the same images, maps and random numbers.

It runs in a process of its own, since TensorFlow and torch do not always share one;
`QUANTUS_PYTHON` may name the interpreter of another environment.
"""

import os
import subprocess
import sys

import numpy as np
import pytest

from keras_attn import metrics
from tests.test_architecture import ROOT

SCRIPT = ROOT / "tests" / "reference" / "quantus_metrics.py"
COUNT, SIZE, SUBSETS, SHARES, SAMPLES = 3, (5, 6), 7, [0.2, 0.5, 0.8], 4


@pytest.fixture(scope="module")
def given():
    random = np.random.default_rng(0)
    images = random.uniform(size=(COUNT, *SIZE)).astype("float32")
    # Ranges of 1, of which radius and noise are shares.
    images[:, 0, 0], images[:, 0, 1] = 0, 1
    weights = 0.5 * random.standard_normal((30, 4)).astype("float32")
    scores = np.tanh(images.reshape(COUNT, -1) @ weights)
    masks = np.zeros((COUNT, *SIZE), bool)
    masks[:, 1:4, 2:5] = True
    drawn = np.random.default_rng(1)
    chosen = [drawn.choice(30, 6, replace=False) for _ in range(SUBSETS * COUNT)]
    drawn = np.random.default_rng(2)
    changes = [0.2 * drawn.uniform(-1, 1, (COUNT, *SIZE, 1)) for _ in range(SAMPLES)]
    return {
        "images": images,
        "weights": weights,
        "maps": random.uniform(size=(COUNT, *SIZE)),
        "labels": scores.argmax(axis=1),
        "masks": masks,
        "choices": np.array(chosen),
        "subsets": SUBSETS,
        "shares": np.array(SHARES),
        "changes": np.array(changes)[..., 0],
    }


@pytest.fixture(scope="module")
def theirs(given, tmp_path_factory):
    python = os.environ.get("QUANTUS_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import quantus"], capture_output=True).returncode:
        pytest.skip("Quantus is not installed")
    folder = tmp_path_factory.mktemp("quantus")
    np.savez(folder / "given.npz", **given)
    command = [python, SCRIPT, folder / "given.npz", folder / "found.npz"]
    subprocess.run(command, check=True)
    return np.load(folder / "found.npz")


@pytest.fixture(scope="module")
def ours(given):
    images, maps, masks = given["images"][..., None], given["maps"], given["masks"]

    def predict(images):
        return np.tanh(images.reshape(len(images), -1) @ given["weights"])

    by_share = metrics.road_curve(predict, images, maps, shares=SHARES, noise=0.0)
    return {
        "relevance_mass_accuracy": metrics.relevance_mass_accuracy(maps, masks),
        "relevance_rank_accuracy": metrics.relevance_rank_accuracy(maps, masks),
        "sparseness": metrics.sparseness(maps),
        "faithfulness_correlation": metrics.faithfulness_correlation(
            predict, images, maps, subsets=SUBSETS, size=6, baseline=0.0, seed=1
        ),
        "road": by_share["kept"].mean(axis=0),
        "max_sensitivity": metrics.max_sensitivity(
            lambda images: images[..., 0] ** 2, images, SAMPLES, 0.2, seed=2
        ),
    }


@pytest.mark.parametrize(
    "name",
    [
        "relevance_mass_accuracy",
        "relevance_rank_accuracy",
        "sparseness",
        "faithfulness_correlation",
        "road",
        "max_sensitivity",
    ],
)
def test_equals_quantus(ours, theirs, name):
    np.testing.assert_allclose(ours[name], theirs[name], atol=1e-4)
    assert np.ptp(ours[name]) > 0 or name == "road"
