import keras
import numpy as np

from keras_attn.layers.context_pooling import ContextPooling
from tests import harness


def test_keeps_every_promise():
    harness.check_layer(
        ContextPooling,
        {"kernel_regularizer": keras.regularizers.L2(0.1)},
        (2, 5, 3, 7),
        other_shapes=[(3, 2, 11, 7)],
        expected_output_shape=(2, 1, 1, 7),
        expected_num_trainable_weights=2,
    )


def test_equals_a_plain_weighted_average():
    images = np.random.default_rng(0).normal(size=(2, 5, 3, 7)).astype("float32")
    layer = ContextPooling()
    layer.build(images.shape)
    harness.randomize(layer)
    kernel, bias = (np.asarray(weight) for weight in layer.get_weights())
    wanted = np.zeros((2, 1, 1, 7))
    for image, result in zip(images, wanted, strict=True):
        cells = image.reshape(15, 7)
        weights = [np.exp(cell @ kernel[:, 0] + bias[0]) for cell in cells]
        result[0, 0] = np.average(cells, axis=0, weights=weights)
    np.testing.assert_allclose(harness.run(layer, images), wanted, rtol=1e-4, atol=1e-5)


def test_large_scores_do_not_overflow():
    images = 1e4 * np.random.default_rng(0).normal(size=(1, 4, 3, 5)).astype("float32")
    pooled = harness.run(ContextPooling(), images)
    assert np.all(pooled >= images.min((1, 2))) and np.all(pooled <= images.max((1, 2)))
