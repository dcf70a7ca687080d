import keras
import numpy as np
import pytest

from keras_attn.convert.assign import (
    CONVOLUTION,
    DEPTHWISE,
    LINEAR,
    VECTOR,
    Target,
    batch_normalization_targets,
    check_weights,
)
from keras_attn.convert.checkpoint import CheckpointError
from tests.harness import to_numpy


@pytest.mark.parametrize(
    "axes, tensor_shape, variable_shape",
    [
        # (out, in, rows, columns) -> (rows, columns, in, out).
        (CONVOLUTION, (2, 3, 5, 7), (5, 7, 3, 2)),
        # (channels, 1, rows, columns) -> (rows, columns, channels, 1).
        (DEPTHWISE, (3, 1, 5, 7), (5, 7, 3, 1)),
        (LINEAR, (2, 3), (3, 2)),
        (VECTOR, (5,), (5,)),
        # A 1x1 convolution on pooled values is a dense layer.
        (CONVOLUTION, (2, 3, 1, 1), (3, 2)),
    ],
)
def test_axes(axes, tensor_shape, variable_shape):
    target = Target(keras.Variable(np.zeros(variable_shape)), axes)
    assert target.tensor_shape == tensor_shape
    tensor = np.arange(np.prod(tensor_shape), dtype="float32").reshape(tensor_shape)
    target.assign(tensor)
    found = to_numpy(target.variable)
    for index in np.ndindex(tensor_shape):
        full = tuple(index[axis] for axis in axes)
        assert found[full[-len(variable_shape) :]] == tensor[index]


def test_batch_normalization():
    layer = keras.layers.BatchNormalization(epsilon=1e-5)
    layer.build((None, 3))
    names = ("weight", "bias", "running_mean", "running_var")
    generator = np.random.default_rng(0)
    scale, offset, mean, variance = generator.uniform(0.5, 2, (4, 3))
    targets = batch_normalization_targets("bn", layer)
    for name, value in zip(names, (scale, offset, mean, variance), strict=True):
        targets[f"bn.{name}"].assign(value)
    inputs = generator.normal(size=(2, 3))
    wanted = (inputs - mean) / np.sqrt(variance + 1e-5) * scale + offset
    found = to_numpy(layer(inputs.astype("float32")))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_check_weights():
    weights = {"a": np.zeros((2, 3)), "b": np.zeros(()), "counter": np.zeros(())}
    check_weights(weights, {"a": (2, 3), "b": ()}, unused=("counter", "other"))
    with pytest.raises(CheckpointError) as caught:
        check_weights(weights, {"a": (3, 2), "c": (1,)}, network="Net")
    assert str(caught.value) == (
        "Expected the weights of Net. Received: missing: c; unknown: b, counter; "
        "of another shape: a (2, 3) instead of (3, 2)"
    )
