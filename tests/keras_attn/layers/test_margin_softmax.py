import keras
import numpy as np
import pytest

from keras_attn.layers.margin_softmax import MarginSoftmax
from tests.harness import check_layer
from tests.reference.soft_maximizers import margin_softmax


def test_layer():
    check_layer(
        MarginSoftmax,
        {"margin": 0.7, "inverse_temperature": 1.3, "scale": 17.0, "axis": 1},
        (2, 5, 7, 3),
        other_shapes=[(3, 11), (2, 5, 1)],
        expected_num_trainable_weights=0,
        supports_masking=True,
    )


@pytest.mark.parametrize("axis", [1, 3])
def test_output_is_the_scaled_margin_softmax(axis):
    activations = np.random.default_rng(0).normal(0, 3, (2, 5, 7, 3))
    layer = MarginSoftmax(0.4, inverse_temperature=0.5, scale=17.0, axis=axis)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(layer(activations)),
        17 * margin_softmax(activations, 0.4, 0.5, axis),
        rtol=1e-5,
    )


@pytest.mark.parametrize("argument", ["inverse_temperature", "scale"])
@pytest.mark.parametrize("value", [0, -1.0, float("nan")])
def test_bad_arguments(argument, value):
    with pytest.raises(ValueError, match=f"Expected `{argument}` .* {argument}="):
        MarginSoftmax(**{argument: value})
