"""A network that sees squares by their colour, on images whose squares are known."""

import types

import keras
import numpy as np
import pytest

from keras_attn.pipelines.generated.dataset import generated_source
from keras_attn.training.experiments.studies import localization_error
from keras_attn.training.experiments.studies._annotations import annotated
from keras_attn.training.experiments.studies.localization_error import errors
from keras_attn.training.recipes.schema import Recipe
from keras_attn.training.runs.run import Run

SIZE, CELL = 48, 4


@pytest.fixture(scope="module")
def model():
    """Logits are the mean channel values."""
    images = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Rescaling(1 / 255)(images)
    x = keras.layers.AveragePooling2D(CELL, name="features")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    classifier = keras.layers.Dense(3, use_bias=False)
    model = keras.Model(images, {"logits": classifier(x)})
    classifier.set_weights([np.eye(3)])
    return model


def scenes():
    """Squares of cells in red, green and blue; the last has a larger blue one too."""
    boxes = np.array([[8, 8, 24, 32], [20, 4, 40, 28], [0, 24, 24, 48], [4, 4, 12, 16]])
    images = np.zeros((4, SIZE, SIZE, 3), "uint8")
    labels = np.array([0, 1, 2, 0])
    for image, label, (y0, x0, y1, x1) in zip(images, labels, boxes, strict=True):
        image[y0:y1, x0:x1, label] = 255
    images[3, 16:40, 16:40, 2] = 255
    return images, labels, boxes


def test_finds_what_is_there(model):
    found = errors(model, *scenes())
    assert found["ground_truth_known_error"] == 0.0
    # The red square is found in the last image too, where more is blue.
    assert found["top1_error"] == found["top1_classification_error"] == 25.0
    assert found["top5_error"] == found["top5_classification_error"] == 0.0
    assert found["best_ground_truth_known_error"] == 0.0


def test_boxes_elsewhere_are_not_found_and_the_best_threshold_is(model):
    images, labels, boxes = scenes()
    found = errors(model, images, labels, boxes[::-1])
    assert found["ground_truth_known_error"] == 100.0
    assert found["top1_error"] == found["top5_error"] == 100.0
    # Weak colour around each square: within the box only for low thresholds.
    for image, label, (y0, x0, y1, x1) in zip(images, labels, boxes, strict=True):
        halo = image[max(y0 - 8, 0) : y1 + 8, max(x0 - 8, 0) : x1 + 8, label]
        halo[halo == 0] = 255 // 4
    found = errors(model, images, labels, boxes)
    assert found["ground_truth_known_error"] > 0.0
    assert found["best_ground_truth_known_error"] == 0.0
    assert 25.0 <= found["best_threshold"] <= 50.0


def test_study_of_runs(tmp_path, model, monkeypatch):
    source = generated_source(48, SIZE, num_classes=3)
    source.annotations["box"][-1] = -1
    recipe = Recipe(name="x", image_size=SIZE, examples=48)
    runs = {"row": Run.create(tmp_path / "run", recipe)}
    trained = types.SimpleNamespace(model=model)
    monkeypatch.setattr(localization_error, "load_trained", lambda *_: trained)
    lines = localization_error.study(runs, {"row": source})
    metrics = {metric: value for row, metric, value, _ in lines if row == "row"}
    chosen = source.official["test"][:-1]
    wanted = errors(
        model,
        source.images[chosen],
        source.labels[chosen],
        source.annotations["box"][chosen],
    )
    assert metrics == wanted and len(chosen) == 7


def test_needs_boxes(tmp_path):
    run = Run(tmp_path, Recipe(name="x"))
    source = types.SimpleNamespace(name="photos", annotations={})
    with pytest.raises(ValueError, match="'box' known.*photos, without 'box'"):
        annotated(run, source, ["box"])
