"""The plain PyTorch that iSQRT-COV is timed against computes the same."""

import keras
import numpy as np
import pytest

from benchmarks import second_order_pooling
from keras_attn.layers.isqrt_cov_pooling import ISQRTCOVPooling
from tests.harness import gradients, run


@pytest.mark.parametrize("iterations", [2, 5])
@pytest.mark.parametrize("variant", ["autograd", "published"])
def test_plain_pytorch_gives_the_same_descriptor_and_gradient(variant, iterations):
    torch = pytest.importorskip("torch")
    from benchmarks import plain_isqrt_cov as plain

    maps = np.random.default_rng(0).normal(size=(2, 7, 3, 5)).astype("float32")
    cotangent = np.random.default_rng(1).normal(size=(2, 15)).astype("float32")
    layer = ISQRTCOVPooling(iterations)
    (wanted,) = gradients(
        lambda x: keras.ops.sum(keras.ops.multiply(layer(x), cotangent)), maps
    )
    covariance, root = {
        "autograd": (plain.centred, plain.root),
        "published": (plain.published, plain.PublishedRoot.apply),
    }[variant]
    tensor = torch.tensor(maps.reshape(2, 21, 5).transpose(0, 2, 1))
    tensor.requires_grad_()
    rows, columns = torch.triu_indices(5, 5)
    found = root(covariance(tensor), iterations)[:, rows, columns]
    np.testing.assert_allclose(found.detach(), run(layer, maps), atol=1e-5)
    (gradient,) = torch.autograd.grad(found, tensor, torch.tensor(cotangent))
    gradient = gradient.numpy().transpose(0, 2, 1).reshape(maps.shape)
    np.testing.assert_allclose(gradient, wanted, atol=1e-5)


def test_ratios_are_to_plain_pytorch_and_without_it_not_judged():
    layer = ("isqrt_cov", "on")
    seconds = {layer: [1.0, 2.0, 9.0], ("PyTorch, autograd", ""): [2.0, 4.0, 6.0]}
    ours, plain = second_order_pooling.measurements(seconds)
    assert (ours.case, ours.xla, ours.value, ours.ratio) == (*layer, 2000.0, 0.5)
    assert plain.ratio == 1.0
    (alone,) = second_order_pooling.measurements({layer: [1.0]})
    assert alone.case == "isqrt_cov, no torch"
