import keras
import numpy as np
import pytest

from keras_attn.layers.branch_decision import BranchDecision
from keras_attn.layers.class_evidence import ClassEvidence
from keras_attn.models.localizer import with_patches
from tests.harness import compiled_layer, to_numpy
from tests.reference import patches as reference

CLASSES = 3
SETTINGS = {"max_patches": (4, 2), "iou_threshold": 0.3, "coverage": (0.5, 0.6)}


def localizer(windows=(7, 11), stride=4):
    """Two branches of average pooling, with random weights."""
    keras.utils.set_random_seed(0)
    images = keras.Input((37, 53, 3))
    outputs = {}
    for window in windows:
        pooled = keras.layers.AveragePooling2D(window, stride)(images)
        branch = ClassEvidence(CLASSES, name=f"evidence_{window}")(pooled)
        outputs[f"logits_{window}"] = branch["logits"]
        outputs[f"evidence_{window}"] = branch["evidence"]
    logits = [outputs[f"logits_{window}"] for window in windows]
    return keras.Model(images, {"logits": BranchDecision()(logits), **outputs})


def images(count=6):
    return np.random.default_rng(1).normal(size=(count, 37, 53, 3)).astype("float32")


@pytest.fixture(scope="module")
def model():
    return with_patches(localizer(), **SETTINGS)


@pytest.fixture(scope="module")
def outputs(model):
    return outputs_of(model)


def outputs_of(model):
    found = compiled_layer(model)(images())
    return {name: to_numpy(value) for name, value in found.items()}


def test_patches_are_those_of_a_loop_over_the_model_s_own_maps(outputs):
    exponents = np.exp(np.stack([outputs["logits_7"], outputs["logits_11"]], axis=1))
    for index, row in enumerate(exponents):
        label, branch = reference.decide(row / row.sum(axis=-1, keepdims=True))
        assert outputs["branch"][index] == branch
        assert outputs["logits"][index].argmax() == label
        window = (7, 11)[branch]
        evidence = outputs[f"evidence_{window}"][index, ..., label]
        cells, boxes = reference.localize(
            evidence,
            (window, window),
            SETTINGS["max_patches"][branch],
            SETTINGS["iou_threshold"],
            int(evidence.size * SETTINGS["coverage"][branch]),
            (4, 4),
        )
        valid = outputs["valid"][index]
        assert valid.tolist() == [True] * len(boxes) + [False] * (4 - len(boxes))
        np.testing.assert_array_equal(outputs["boxes"][index][valid], boxes)
        np.testing.assert_array_equal(outputs["boxes"][index][~valid], -1)
        expected = [evidence[cell] for cell in cells]
        np.testing.assert_allclose(outputs["scores"][index][valid], expected)
    assert set(outputs["branch"]) == {0, 1}


def test_the_localizer_s_own_outputs_and_weights_are_kept():
    source = localizer()
    model = with_patches(source, 3)
    assert model.output["boxes"].shape == (None, 3, 4)
    assert model.name == source.name and with_patches(source, 3, name="x").name == "x"
    found = outputs_of(model)
    for name, value in outputs_of(source).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6)
    assert {id(weight) for weight in model.weights} == {
        id(weight) for weight in source.weights
    }


def test_it_can_be_saved(model, outputs, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for name, value in outputs_of(loaded).items():
        np.testing.assert_array_equal(value, outputs[name])


def test_bad_settings_and_models_are_errors():
    source = localizer()
    with pytest.raises(ValueError, match="max_patches"):
        with_patches(source, 0)
    with pytest.raises(ValueError, match="max_patches"):
        with_patches(source, (5, 3, 2))
    with pytest.raises(ValueError, match="iou_threshold"):
        with_patches(source, 5, iou_threshold=1.5)
    bare = keras.Model(source.inputs, {"logits": source.output["logits"]})
    with pytest.raises(ValueError, match="evidence_"):
        with_patches(bare, 5)
