import numpy as np

from keras_attn.layers.cross_dimensional_pooling import CrossDimensionalPooling
from tests import harness
from tests.reference.retrieval import cross_dimensional


def test_keeps_the_promises_of_a_layer():
    harness.check_layer(
        CrossDimensionalPooling,
        {},
        (2, 5, 3, 7),
        other_shapes=[(1, 1, 11, 7)],
        expected_output_shape=(2, 7),
        expected_num_trainable_weights=0,
    )


def test_equals_the_plain_version_on_maps_of_any_size():
    layer = CrossDimensionalPooling()
    for shape in ((2, 3, 5, 7), (1, 4, 2, 7)):
        features = np.maximum(harness.to_numpy(harness.example(shape)), 0)
        wanted = [cross_dimensional(image) for image in features]
        np.testing.assert_allclose(
            harness.run(layer, features), wanted, rtol=1e-4, atol=1e-6
        )
