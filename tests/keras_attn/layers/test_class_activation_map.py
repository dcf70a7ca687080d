import keras
import numpy as np
import pytest

from keras_attn.layers.class_activation_map import ClassActivationMap
from tests.harness import check_layer, example, randomize, run, to_numpy


@pytest.mark.parametrize("use_bias", [True, False])
def test_keeps_the_promises_of_a_layer(use_bias):
    check_layer(
        ClassActivationMap,
        {
            "classifier": keras.layers.Dense(5, use_bias=use_bias),
            "patch_size": (63, 31),
        },
        (2, 7, 3, 11),
        other_shapes=[(1, 1, 1, 11), (2, 4, 6, 11)],
        expected_num_trainable_weights=1 + use_bias,
    )


def test_is_the_classifier_cell_by_cell_and_shares_its_weights():
    classifier = keras.layers.Dense(5, activation="relu")
    layer = ClassActivationMap(classifier)
    features = example((2, 7, 3, 11))
    layer(features)
    randomize(classifier)
    outputs = run(layer, features)
    kernel, bias = map(to_numpy, (classifier.kernel, classifier.bias))
    for i in range(7):
        for j in range(3):
            wanted = to_numpy(features)[:, i, j] @ kernel / 21
            np.testing.assert_allclose(outputs["evidence"][:, i, j], wanted, atol=1e-5)
    logits = to_numpy(features).mean((1, 2)) @ kernel + bias
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-5)
    total = outputs["evidence"].sum((1, 2)) + bias
    np.testing.assert_allclose(total, logits, atol=1e-5)


@pytest.mark.parametrize(
    "classifier, patch_size, message",
    [
        (keras.layers.Conv2D(3, 1), None, "`classifier` to be a Dense layer"),
        (keras.layers.Dense(3), 0, "`patch_size` to be a positive integer"),
    ],
)
def test_refuses_wrong_arguments(classifier, patch_size, message):
    with pytest.raises(ValueError, match=f"Expected {message}"):
        ClassActivationMap(classifier, patch_size)
