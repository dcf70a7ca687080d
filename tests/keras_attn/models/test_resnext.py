import keras
import numpy as np
import pytest

from keras_attn.graph.costs import multiply_adds, trainable_params
from keras_attn.models.resnext import bottleneck_block, resnext, resnext50
from tests import harness
from tests.harness import unweighted
from tests.reference import operations

counting = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="building is slow elsewhere, and counts and shapes are the same",
)


@counting
@unweighted()
def test_resnext50_costs_what_is_published():
    model = resnext50()
    assert trainable_params(model) == 25_028_904
    assert operations.count(model, 224, 224)["multiply_adds"] == 4_230_479_872


@counting
@unweighted()
def test_one_group_is_the_resnet50_that_the_anchornet_paper_counts():
    """AnchorNet paper, table 3: 4.1 G for full images, and the patches' costs."""
    model = resnext(groups=1, group_width=64)
    assert trainable_params(model) == 25_557_032
    for size, wanted in ((63, 0.336), (95, 0.753), (111, 1.078), (224, 4.089)):
        found = operations.count(model, size, size)["multiply_adds"]
        assert round(found / 1e9, 3) == wanted


def grouped_convolution(images, kernel, groups, strides):
    """By the definition, one output channel at a time, padded by one cell."""
    batch, height, width, _ = images.shape
    taken, filters = kernel.shape[2:]
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows, columns = (height - 1) // strides + 1, (width - 1) // strides + 1
    result = np.zeros((batch, rows, columns, filters))
    for channel in range(filters):
        first = channel // (filters // groups) * taken
        for row in range(rows):
            for column in range(columns):
                top, left = row * strides, column * strides
                window = padded[:, top : top + 3, left : left + 3]
                result[:, row, column, channel] = np.sum(
                    window[..., first : first + taken] * kernel[..., channel], (1, 2, 3)
                )
    return result


@pytest.mark.parametrize("strides, filters", [(1, 11), (2, 11), (1, 10)])
def test_a_block_equals_its_equation(strides, filters):
    images = np.random.default_rng(0).normal(size=(2, 6, 5, 11)).astype("float32")
    inputs = keras.Input((None, None, 11))
    outputs = bottleneck_block(inputs, 6, filters, "block", groups=3, strides=strides)
    block = keras.Model(inputs, outputs)
    harness.randomize(block)

    def normalized(x, layer):
        layer = block.get_layer(f"block_{layer}_normalization")
        gamma, beta, mean, variance = layer.get_weights()
        return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta

    def kernel(layer):
        return block.get_layer(f"block_{layer}").get_weights()[0]

    x = np.maximum(normalized(images @ kernel("conv1")[0, 0], "conv1"), 0)
    x = grouped_convolution(x, kernel("conv2"), 3, strides)
    x = np.maximum(normalized(x, "conv2"), 0)
    x = normalized(x @ kernel("conv3")[0, 0], "conv3")
    shortcut = images
    if (strides, filters) != (1, 11):
        shortcut = images[:, ::strides, ::strides] @ kernel("projection")[0, 0]
        shortcut = normalized(shortcut, "projection")
    wanted = np.maximum(shortcut + x, 0)
    np.testing.assert_allclose(harness.run(block, images), wanted, 1e-4, 1e-4)


@pytest.fixture(scope="module")
def small_resnext():
    return resnext((1, 2), 4, 3, num_classes=3, input_shape=(63, 95, 3))


@counting
def test_accounting_knows_groups(small_resnext):
    kernel = small_resnext.get_layer("stage2_block1_conv2").kernel
    assert kernel.shape == (3, 3, 24 // 4, 24)
    wanted = operations.count(small_resnext, 63, 95)["multiply_adds"]
    assert multiply_adds(small_resnext) == wanted


@counting
def test_stages_can_be_reached(small_resnext):
    assert small_resnext.get_layer("stage1").output.shape == (None, 16, 24, 256)
    assert small_resnext.get_layer("stage2").output.shape == (None, 8, 12, 512)


def test_grouped_convolutions_learn():
    inputs = keras.Input((None, None, 8))
    outputs = bottleneck_block(inputs, 12, 8, "block", groups=4, decay=0.1)
    block = keras.Model(inputs, outputs)
    assert len(block.losses) == 3
    layer = block.get_layer("block_conv2")
    before = layer.get_weights()[0]
    # JAX is quicker compiled, the others are not.
    eager = keras.backend.backend() != "jax"
    block.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=eager)
    images = np.random.default_rng(0).normal(size=(4, 6, 5, 8))
    block.fit(images, np.ones((4, 6, 5, 8)), verbose=0)
    # More than the penalty's gradient does by itself.
    moved = layer.get_weights()[0] - 0.98 * before
    assert np.all(np.abs(moved).max((0, 1)) > 1e-5)
