import numpy as np
import pytest

from keras_attn.layers import ClassPrompts
from tests.harness import check_layer, example, randomize, run, to_numpy


def test_keeps_the_promises_of_a_layer():
    check_layer(
        ClassPrompts, {"num_classes": 3}, (2, 5, 7), expected_num_trainable_weights=1
    )


def test_prompts_come_first():
    layer, tokens = ClassPrompts(3), example((2, 5, 4))
    layer(tokens)
    randomize(layer)
    found = run(layer, tokens)
    wanted = to_numpy(layer.prompts)
    np.testing.assert_array_equal(found[:, :3], np.stack([wanted, wanted]))
    np.testing.assert_array_equal(found[:, 3:], to_numpy(tokens))


def test_refuses_no_classes():
    with pytest.raises(ValueError, match="num_classes=0"):
        ClassPrompts(0)
