import numpy as np

from keras_attn.layers import IdentityStart
from tests.harness import check_layer, example, to_numpy


def test_keeps_the_promises_of_a_layer():
    check_layer(
        IdentityStart,
        {"initializer": "ones"},
        [(2, 5, 3)] * 2,
        expected_num_trainable_weights=1,
    )


def test_fades_from_the_first_to_the_second():
    x, y = map(to_numpy, (example((2, 3, 4, 5), seed=1), example((2, 3, 4, 5), seed=2)))
    layer = IdentityStart()
    np.testing.assert_array_equal(to_numpy(layer([x, y])), x)
    layer.scale.assign(0.25)
    np.testing.assert_allclose(to_numpy(layer([x, y])), 0.75 * x + 0.25 * y, atol=1e-6)
