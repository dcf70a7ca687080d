"""Convolutions in the form that is fast, against Keras's own."""

import numpy as np
import pytest
from keras import ops

from keras_attn.explain.gradients import gradient
from keras_attn.ops import convolutions
from tests.harness import to_numpy

CASES = {
    "single cell": ((1, 1), {}),
    "valid, strides": ((3, 2), {"strides": 2}),
    "same, strides, even": ((2, 4), {"strides": (2, 2), "padding": "same"}),
    "same, dilated": ((3, 5), {"padding": "same", "dilation_rate": (2, 1)}),
}


def arrays(size, dtype="float32"):
    random = np.random.default_rng(0)
    shapes = (2, 9, 8, 3), (*size, 3, 1)
    return [ops.cast(random.normal(size=shape), dtype) for shape in shapes]


def value_and_slopes(convolve, inputs, kernel, options):
    def scalar(tensors):
        outputs = convolve(*tensors, **options)
        weights = ops.reshape(ops.arange(int(np.prod(outputs.shape))), outputs.shape)
        return ops.sum(outputs * ops.sin(ops.cast(weights, outputs.dtype)))

    outputs = convolve(inputs, kernel, **options)
    return [outputs, *gradient(scalar, [inputs, kernel])]


@pytest.mark.parametrize("name", CASES)
def test_shifts_equal_the_convolution_of_keras_with_gradients(name, monkeypatch):
    size, options = CASES[name]
    inputs, kernel = arrays(size)
    wanted = value_and_slopes(ops.depthwise_conv, inputs, kernel, options)
    for pays in (True, False):
        monkeypatch.setattr(convolutions, "_shifts_pay", lambda *_, pays=pays: pays)
        found = value_and_slopes(convolutions.depthwise_conv, inputs, kernel, options)
        for actual, value in zip(found, wanted, strict=True):
            np.testing.assert_allclose(to_numpy(actual), to_numpy(value), atol=1e-5)


def test_several_outputs_of_a_channel_and_plain_convolutions_equal_those_of_keras():
    inputs, kernel = arrays((3, 3))
    kernel = ops.repeat(kernel, 2, axis=-1)
    for name in ("conv", "depthwise_conv"):
        found = getattr(convolutions, name)(inputs, kernel, 2, "same")
        wanted = getattr(ops, name)(inputs, kernel, 2, "same")
        np.testing.assert_allclose(to_numpy(found), to_numpy(wanted), atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_rounded_once(dtype, monkeypatch):
    monkeypatch.setattr(convolutions, "_shifts_pay", lambda *_: True)
    inputs, kernel = arrays((5, 5), dtype)
    found = convolutions.depthwise_conv(inputs, kernel)
    wide = [ops.cast(each, "float32") for each in (inputs, kernel)]
    wanted = ops.cast(ops.depthwise_conv(*wide), dtype)
    assert found.dtype == wanted.dtype
    found, wanted = (to_numpy(ops.cast(each, "float32")) for each in (found, wanted))
    # A sum in another order may fall on the other side of half a step.
    assert np.mean(found != wanted) < 0.01
