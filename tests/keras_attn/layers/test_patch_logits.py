import numpy as np
import pytest

from keras_attn.layers import PatchLogits
from tests.harness import check_layer, example, randomize, run
from tests.reference.class_embedding import window_average


def test_keeps_the_promises_of_a_layer():
    check_layer(
        PatchLogits,
        {
            "num_classes": 5,
            "window": (3, 2),
            "kernel_initializer": "he_normal",
            "kernel_regularizer": "l2",
        },
        (2, 7, 3, 11),
        other_shapes=[(1, 1, 1, 2), (2, 4, 6, 3)],
        expected_num_trainable_weights=2,
        expected_num_losses=1,
    )


@pytest.mark.parametrize("shape", [(2, 7, 5, 3), (2, 8, 4, 3), (2, 1, 1, 3)])
def test_equals_the_linear_classifier_of_the_window_average(shape):
    layer = PatchLogits(4)
    inputs = example(shape)
    layer(inputs)
    randomize(layer)
    kernel, bias = layer.get_weights()
    half = max(shape[1] // 2, 1), max(shape[2] // 2, 1)
    wanted = window_average(np.asarray(inputs), half) @ kernel + bias
    np.testing.assert_allclose(run(layer, inputs), wanted, atol=1e-5)


@pytest.mark.parametrize("num_classes", [0, 2.5, None])
def test_refuses_a_wrong_number_of_classes(num_classes):
    with pytest.raises(ValueError, match="num_classes"):
        PatchLogits(num_classes)


def test_refuses_inputs_that_are_no_maps():
    with pytest.raises(ValueError, match="ndim=4"):
        PatchLogits(3)(example((2, 5)))
