"""The table of all methods on the same images."""

import json

import keras
import numpy as np
import pytest
from keras import layers

from keras_attn.explain import last_map
from keras_attn.training.cli import main
from keras_attn.training.explain.names import TITLES
from keras_attn.training.explain.saliency import Saliency
from keras_attn.training.trained import load_trained
from tests.training import tiny_models as tiny

SIZE = (8, 12)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    path = tmp_path_factory.mktemp("compared") / "theirs.keras"
    inputs = keras.Input((*SIZE, 3))
    x = layers.AveragePooling2D(4, name="cells")(inputs)
    x = layers.GlobalAveragePooling2D()(x)
    top = layers.Dense(3, activation="softmax")
    model = keras.Model(inputs, top(x))
    top.set_weights([10 * np.eye(3), np.array([0.0, 0.1, 0.2])])
    model.save(path)
    return path


@pytest.fixture
def file(tmp_path):
    pixels = tiny.plain_image(green=255)[: SIZE[0], : SIZE[1]]
    pixels[:4, :4] = (255, 0, 0)
    return tiny.save_image(tmp_path / "photo.png", pixels)


def test_methods_beside_controls(theirs, file, tmp_path, capsys):
    given = ["explain", theirs, file, "--output", tmp_path / "out", "--pixels", "0..1"]
    given = [*map(str, given), "--compare"]
    assert main([*given, "grad_cam", "grad_cam"]) == 0
    result = json.loads((tmp_path / "out" / "compare.json").read_text())
    printed = capsys.readouterr()
    assert (tmp_path / "out" / "compare.md").read_text() in printed.out
    assert "Scored 2 of 2 images" in printed.err
    rows = {row["method"]: row for row in result["rows"]}
    assert list(rows) == [
        "random maps",
        "grad_cam",
        "grad_cam, random network",
    ]
    first = rows["grad_cam"]
    assert first["deletion"] < rows["random maps"]["deletion"]
    assert first["faithfulness_correlation"] > 0.3 and first["seconds"] > 0
    assert {"insertion", "road", "sparseness", "max_sensitivity"} < set(first)
    assert -1 <= first["rank_correlation"] <= 1
    assert main([*given, "legrad"]) == 2
    assert "computes none" in capsys.readouterr().err
    assert main([*given, "grad_cam", "--metrics"]) == 2
    assert "--compare" in capsys.readouterr().err


@pytest.mark.parametrize(
    "method",
    sorted(
        set(TITLES) - {"occlusion", "legrad", "gradient_rollout", "rollout", "grad_cam"}
    ),
)
def test_every_method_has_maps(theirs, method):
    subject = load_trained(theirs)
    assert last_map(subject.model) == "cells"
    images = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), "uint8")
    maps = Saliency(method).maps(subject, images, np.array([[0, 2]]))
    assert maps.shape == (1, 2, *SIZE) and 0 <= maps.min() and maps.max() <= 1
