"""Models and exit policies of commit a8c9ace, see `tests/data/a8c9ace/README.md`."""

import json
import pathlib
import re
import zipfile

import keras
import numpy as np
import pytest

from keras_attn import ExitPolicy
from tests.data.a8c9ace.models import NEEDS_KERAS, inputs_of
from tests.harness import compiled_layer, to_numpy

FOLDER = pathlib.Path(__file__).parents[1] / "data" / "a8c9ace"
OLD_LAYERS = (FOLDER / "layers.txt").read_text().split()
MODELS = sorted(path.stem for path in (FOLDER / "models").iterdir())


@pytest.fixture(scope="module")
def expected():
    with np.load(FOLDER / "models.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


@NEEDS_KERAS
@pytest.mark.parametrize("name", MODELS)
def test_an_old_model_computes_what_it_did(name, expected):
    model = keras.saving.load_model(FOLDER / "models" / f"{name}.keras", compile=False)
    outputs = compiled_layer(model)(inputs_of(model))
    if not isinstance(outputs, dict):
        outputs = {"output": outputs}
    keys = {key.removeprefix(f"{name}/") for key in expected if _of(name, key)}
    assert keys and keys == set(outputs)
    for key, value in outputs.items():
        wanted = expected[f"{name}/{key}"]
        # A mean over 4000 draws, which differ between backends.
        tolerance = 0.05 if key == "perturbed_argmax" else 1e-4
        np.testing.assert_allclose(
            to_numpy(value), wanted, rtol=tolerance, atol=tolerance, err_msg=key
        )


def test_every_layer_is_among_them():
    found = set()
    for name in MODELS:
        with zipfile.ZipFile(FOLDER / "models" / f"{name}.keras") as archive:
            config = archive.read("config.json").decode()
        found |= set(re.findall(r'"registered_name": "keras_attn>(\w+)"', config))
    # Later ones are in no old file.
    assert {"ImagePreprocessing", "ExitRule", *OLD_LAYERS} <= found


def test_an_old_exit_policy_decides_as_it_did():
    with np.load(FOLDER / "table.npz") as table:
        points = ExitPolicy.load(FOLDER / "policy.json").evaluate(**table)
    wanted = json.loads((FOLDER / "policy_points.json").read_text())
    assert [dict(point) for point in points] == [
        pytest.approx(point, rel=1e-6) for point in wanted
    ]


def _of(name, key):
    return key.startswith(f"{name}/")
