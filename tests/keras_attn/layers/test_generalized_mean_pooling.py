import numpy as np
import pytest

from keras_attn.layers.generalized_mean_pooling import GeneralizedMeanPooling
from tests import harness
from tests.reference.retrieval import generalized_mean


def test_keeps_the_promises_of_a_layer():
    harness.check_layer(
        GeneralizedMeanPooling,
        {"p": 2.5, "epsilon": 1e-3},
        (2, 5, 3, 7),
        other_shapes=[(1, 1, 11, 7)],
        expected_output_shape=(2, 7),
        expected_num_trainable_weights=1,
    )


def test_equals_the_plain_version_with_its_learned_exponent():
    layer = GeneralizedMeanPooling()
    inputs = harness.example((2, 3, 5, 7))
    layer(inputs)
    assert layer.get_weights() == [3.0]
    layer.set_weights([np.float32(4.5)])
    wanted = [generalized_mean(image, 4.5) for image in harness.to_numpy(inputs)]
    np.testing.assert_allclose(harness.run(layer, inputs), wanted, rtol=1e-4)


def test_half_precision_does_not_round_the_exponent():
    layer = GeneralizedMeanPooling(1.001, dtype="mixed_bfloat16")
    inputs = 2.0 ** np.arange(-20, 4, dtype="float32").reshape(1, 4, 6, 1)
    pooled = harness.run(layer, inputs)
    np.testing.assert_allclose(pooled[0], generalized_mean(inputs[0], 1.001), 2**-8)


@pytest.mark.parametrize(("name", "value"), [("p", 0), ("p", -1.0), ("epsilon", 0.0)])
def test_refuses_what_is_not_positive(name, value):
    with pytest.raises(ValueError, match=f"Expected `{name}`.*Received: {name}="):
        GeneralizedMeanPooling(**{name: value})
