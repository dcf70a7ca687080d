import numpy as np
import pytest

from keras_attn.layers.whitening import Whitening
from keras_attn.retrieval.whitening import pca_whitening, whiten
from tests import harness


def test_keeps_the_promises_of_a_layer():
    harness.check_layer(
        Whitening,
        {"dimensions": 5, "epsilon": 1e-3},
        (2, 7),
        other_shapes=[(3, 11)],
        expected_output_shape=(2, 5),
        expected_num_trainable_weights=2,
    )


def test_computes_what_the_fit_learned():
    descriptors = np.random.default_rng(0).normal(size=(40, 7)).astype("float32")
    weights = pca_whitening(descriptors, 5)
    layer = Whitening(5)
    layer.build((None, 7))
    layer.set_weights(weights)
    found = harness.run(layer, descriptors)
    np.testing.assert_allclose(found, whiten(descriptors, *weights), atol=1e-5)


def test_keeps_the_first_dimensions_before_it_has_learned():
    found = harness.run(Whitening(2), np.array([[3.0, 4.0, 9.0]], "float32"))
    np.testing.assert_allclose(found, [[0.6, 0.8]], atol=1e-6)


def test_refuses_bad_dimensions():
    with pytest.raises(ValueError, match="Expected `dimensions`"):
        Whitening(0)
    with pytest.raises(ValueError, match="at least 5 dimensions"):
        Whitening(5)(np.zeros((2, 3), "float32"))
