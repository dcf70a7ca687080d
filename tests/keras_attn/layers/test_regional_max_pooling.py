import keras
import numpy as np
import pytest

from keras_attn.layers.regional_max_pooling import RegionalMaxPooling
from tests import harness
from tests.reference.retrieval import regional_maximum


def test_keeps_the_promises_of_a_layer():
    harness.check_layer(
        RegionalMaxPooling,
        {"levels": 2, "epsilon": 1e-3},
        (2, 5, 3, 7),
        other_shapes=[(1, 1, 2, 7)],
        expected_output_shape=(2, 7),
        expected_num_trainable_weights=0,
    )


def test_equals_the_plain_version():
    inputs = harness.example((2, 5, 3, 7))
    wanted = [regional_maximum(image, 2, 1) for image in harness.to_numpy(inputs)]
    pooled = harness.run(RegionalMaxPooling(levels=2), inputs)
    np.testing.assert_allclose(pooled, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("levels", [0, 1.5])
def test_refuses_a_bad_number_of_levels(levels):
    with pytest.raises(ValueError, match="Expected `levels`"):
        RegionalMaxPooling(levels)


def test_refuses_maps_of_an_unknown_size():
    with pytest.raises(ValueError, match="fixed height and width.*None"):
        RegionalMaxPooling()(keras.Input((None, 5, 7)))
