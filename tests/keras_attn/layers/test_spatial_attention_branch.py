import numpy as np

from keras_attn.layers import SpatialAttentionBranch
from tests.harness import check_layer, example, randomize, run, to_numpy
from tests.reference.anchornet import saccader_location, spatial_attention


def test_keeps_the_promises_of_a_layer():
    check_layer(
        SpatialAttentionBranch,
        {"kernel_regularizer": "l2"},
        (2, 7, 3, 5),
        other_shapes=[(1, 1, 1, 2)],
        expected_num_trainable_weights=2,
        expected_num_losses=1,
    )


def test_equals_equations_1_to_5_and_the_cell_of_saccader():
    layer = SpatialAttentionBranch()
    inputs = 3.0 * example((3, 5, 4, 6))
    layer(inputs)
    randomize(layer)
    kernel, bias = (to_numpy(weight) for weight in layer.weights)
    found = run(layer, inputs)
    for image, attention in zip(to_numpy(inputs), found, strict=True):
        wanted = spatial_attention(image, kernel, bias)
        np.testing.assert_allclose(attention, wanted, atol=1e-5)
        other = saccader_location(image, kernel, bias)
        np.testing.assert_allclose(attention, other, atol=1e-5)


def test_sums_to_one_and_is_uniform_on_a_constant_map():
    layer = SpatialAttentionBranch()
    found = run(layer, 20.0 * example((2, 9, 4, 3)))
    np.testing.assert_allclose(found.sum(axis=(1, 2, 3)), 1.0, atol=1e-5)
    constant = np.broadcast_to(to_numpy(example((1, 1, 1, 3))), (2, 9, 4, 3))
    np.testing.assert_allclose(run(layer, constant), 1 / 36, atol=1e-6)
