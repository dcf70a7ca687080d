import numpy as np
import pytest

from keras_attn.layers import EfficientChannelAttention
from tests.harness import check_layer, example, randomize, run, to_numpy
from tests.reference.blocks import eca

ARGUMENTS = {
    "kernel_size": 5,
    "gate_activation": "hard_sigmoid",
    "kernel_regularizer": "l2",
}


def test_keeps_the_promises_of_a_layer():
    check_layer(
        EfficientChannelAttention,
        ARGUMENTS,
        (2, 7, 3, 5),
        other_shapes=[(1, 1, 1, 2)],
        expected_num_trainable_weights=1,
        expected_num_losses=1,
    )


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_equals_the_numpy_version(kernel_size):
    layer = EfficientChannelAttention(kernel_size)
    inputs = example((2, 5, 7, 6))
    layer(inputs)
    randomize(layer)
    (kernel,) = layer.weights
    wanted = [eca(image, to_numpy(kernel)) for image in to_numpy(inputs)]
    np.testing.assert_allclose(run(layer, inputs), wanted, atol=1e-5)


def test_the_paper_s_kernel_sizes():
    sizes = {}
    for channels in (2, 64, 256, 512, 2048):
        layer = EfficientChannelAttention()
        layer.build((None, 4, 4, channels))
        sizes[channels] = layer.weights[0].shape[0]
    assert sizes == {2: 3, 64: 3, 256: 5, 512: 5, 2048: 7}


@pytest.mark.parametrize("kernel_size", [0, 4, 2.5])
def test_refuses(kernel_size):
    with pytest.raises(ValueError, match="Expected `kernel_size`"):
        EfficientChannelAttention(kernel_size)
