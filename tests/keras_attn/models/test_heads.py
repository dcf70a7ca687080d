"""Composite models around classifiers of one score, of labels and of any activation."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_attn.models import as_localizer, early_exit_classifier, patch_classifier
from keras_attn.models.early_exit import exit_table
from keras_attn.ops.patches import crop_patches
from tests.harness import to_numpy

SIZE, PATCH = (20, 24), 8


def classifier(size, units, activation=None, bias=0.0):
    """The mean colour through a known kernel."""
    inputs = keras.Input((*size, 3))
    x = layers.AveragePooling2D(2)(inputs)
    head = layers.Dense(units, activation)
    model = keras.Model(inputs, head(layers.GlobalAveragePooling2D()(x)))
    kernel = np.linspace(-3, 3, 3 * units).reshape(3, units)
    head.set_weights([kernel, np.full(units, bias)])
    return model


def images():
    return np.random.default_rng(0).random((3, *SIZE, 3), "float32")


def predicted(model):
    return keras.tree.map_structure(to_numpy, model(images()))


def patch_scores(model, classify):
    """Scores of every patch of every image, by cutting each out."""
    found = predicted(model)
    patches = to_numpy(crop_patches(images(), found["boxes"], PATCH))
    return found, np.stack([to_numpy(classify(row)) for row in patches])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


HEADS = {
    "one logit": (1, None, sigmoid),
    "one sigmoid": (1, "sigmoid", None),
    "one log sigmoid": (1, "log_sigmoid", np.exp),
    "labels": (3, "sigmoid", None),
    "softmax": (3, lambda x: ops.softmax(x), None),
    "log softmax": (3, "log_softmax", np.exp),
}


@pytest.mark.parametrize("units, activation, to_share", HEADS.values(), ids=HEADS)
def test_patches_have_the_probabilities_of_the_classifier(units, activation, to_share):
    localizer = as_localizer(classifier(SIZE, units), patch_size=PATCH)
    classify = classifier((None, None), units, activation, bias=-2.0)
    model = patch_classifier(localizer, classify, 2)
    found, scores = patch_scores(model, classify)
    wanted = scores if to_share is None else to_share(scores)
    assert found["valid"].all()
    np.testing.assert_allclose(found["patch_probabilities"], wanted, atol=1e-5)
    mean, logits = wanted.mean(axis=1), found["logits"]
    if units == 1 or activation == "sigmoid":
        np.testing.assert_allclose(sigmoid(logits), mean, atol=1e-5)
    else:
        np.testing.assert_allclose(np.exp(logits), mean, atol=1e-5)


@pytest.mark.parametrize("bias, share", [(-5.0, 0.01), (5.0, 0.99)])
def test_strong_logits_of_one_score_are_near_zero_and_one(bias, share):
    localizer = as_localizer(classifier(SIZE, 1), patch_size=PATCH)
    classify = classifier((None, None), 1, bias=bias)
    classify.layers[-1].kernel.assign(ops.zeros((3, 1)))
    found = predicted(patch_classifier(localizer, classify, 2))
    np.testing.assert_allclose(found["patch_probabilities"], share, atol=0.01)
    np.testing.assert_allclose(found["logits"], bias, atol=1e-4)


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_early_exits_of_one_score(activation):
    localizer = as_localizer(classifier(SIZE, 1), patch_size=PATCH)
    resized = classifier((8, 8), 1, activation)
    patches = classifier((None, None), 1, activation)
    model = early_exit_classifier(localizer, resized, patches, 2, thresholds=0.999)
    found = predicted(model)
    np.testing.assert_array_equal(found["exit"], 2)
    share = sigmoid(found["logits"][:, 0])
    confidence = np.maximum(share, 1 - share)
    np.testing.assert_allclose(found["confidence"][:, -1], confidence, atol=1e-5)
    np.testing.assert_array_equal(found["predictions"][:, -1], share > 0.5)
    table = exit_table(model, [(images(), [0, 0, 1])])
    wanted = found["predictions"] == np.array([[0], [0], [1]])
    np.testing.assert_array_equal(table["correct"], wanted)


def test_a_localizer_of_one_score_shows_the_predicted_side():
    whole = classifier(SIZE, 1, bias=-9.0)
    localizer = as_localizer(whole, patch_size=PATCH)
    found = predicted(patch_classifier(localizer, classifier((None, None), 1), 1))
    evidence = to_numpy(localizer(images())["evidence_8"])[..., 0]
    np.testing.assert_array_equal(found["label"], 0)
    wanted = -evidence.min(axis=(1, 2))
    np.testing.assert_allclose(found["scores"][:, 0], wanted, atol=1e-6)


def test_contradictions_and_rules_without_sense_are_refused():
    localizer = as_localizer(classifier(SIZE, 3), patch_size=PATCH)
    with pytest.raises(ValueError, match="False or None.*ends in a softmax"):
        head = classifier((None, None), 3, "softmax")
        patch_classifier(localizer, head, 2, from_logits=True)
    with pytest.raises(ValueError, match="True or None.*without activation"):
        head = classifier((None, None), 3)
        patch_classifier(localizer, head, 2, from_logits=False)
    with pytest.raises(ValueError, match="always 1"):
        patch_classifier(localizer, classifier((None, None), 1, "softmax"), 2)
    with pytest.raises(ValueError, match="one class per image"):
        heads = [classifier(size, 3, "sigmoid") for size in ((8, 8), (None, None))]
        early_exit_classifier(localizer, *heads, 2)
