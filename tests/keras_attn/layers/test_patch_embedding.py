import keras
import numpy as np
import pytest

from keras_attn.layers import PatchEmbedding
from tests.harness import check_layer, example, randomize, run, to_numpy


def test_keeps_the_promises_of_a_layer():
    check_layer(
        PatchEmbedding,
        {"width": 7, "patch_size": (3, 2)},
        (2, 6, 10, 3),
        expected_num_trainable_weights=2,
    )


def test_equals_one_product_a_patch():
    layer = PatchEmbedding(5, (2, 3))
    images = example((2, 4, 9, 3))
    layer(images)
    randomize(layer)
    kernel, bias = (to_numpy(weight) for weight in layer.weights)
    found = run(layer, images)
    for row in range(2):
        for column in range(3):
            patch = to_numpy(images)[:, 2 * row : 2 * row + 2, 3 * column :][:, :, :3]
            wanted = np.einsum("bhwc,hwcd->bd", patch, kernel) + bias
            np.testing.assert_allclose(found[:, row, column], wanted, atol=1e-5)


def test_counts_its_products():
    layer = PatchEmbedding(192, 16)
    assert layer.multiply_adds((None, 224, 96, 3)) == 14 * 6 * 768 * 192


def test_sizes_may_be_open():
    layer = PatchEmbedding(4, 8)
    assert layer(keras.Input((None, 16, 3))).shape == (None, None, 2, 4)


def test_refuses_images_that_patches_do_not_tile():
    for images in (np.zeros((1, 16, 20, 3)), keras.Input((20, 16, 3))):
        with pytest.raises(ValueError, match=r"divisible .*patch_size=\(8, 8\).*20"):
            PatchEmbedding(4, 8)(images)


@pytest.mark.parametrize("arguments", [(0, 8), (2.0, 8), (4, 0), (4, (2, 2, 2))])
def test_refuses_bad_arguments(arguments):
    with pytest.raises(ValueError, match="Expected `(width|patch_size)`"):
        PatchEmbedding(*arguments)
