"""iSQRT-COV pooling against the same in plain PyTorch, forward and backward."""

import importlib.util

import keras
import numpy as np

from benchmarks import measure
from benchmarks.soft_maximizers import XLA, gradient_step
from keras_attn.layers.isqrt_cov_pooling import ISQRTCOVPooling

MAPS = (8, 28, 28, 256)
ITERATIONS = 5
CASE = "isqrt_cov"
AUTOGRAD = "PyTorch, autograd"
PUBLISHED = "PyTorch, published"


def run(quick):
    """Measurements of the layer and, where torch is installed, of plain PyTorch."""
    cases = {
        (CASE, xla): gradient_step([ISQRTCOVPooling(ITERATIONS)], MAPS, xla == "on")
        for xla in XLA[keras.backend.backend()]
    }
    if importlib.util.find_spec("torch"):
        cases |= plain_pytorch()
    seconds = measure.interleaved(cases, 5 if quick else 21, warmup=2)
    return measurements(seconds)


def measurements(seconds):
    """Times, and their ratios to plain PyTorch in the same process.

    Without torch there is no ratio to judge, and the case is named so.

    Args:
        seconds: Dict from (case, xla) to the list of seconds, one a round.
    """
    rows = []
    for (case, xla), times in seconds.items():
        reference = seconds.get((AUTOGRAD, ""))
        name = case if reference else f"{case}, no torch"
        both = {name: times, "reference": reference or times}
        rows += measure.relative_times(both, "reference", xla)[:1]
    return rows


def plain_pytorch():
    """(case, xla) -> function that computes the gradient of the maps.

    `autograd` differentiates the recursion, `published` has the backward pass of
    iSQRT-COV's equations (6) to (9) written out and multiplies by the centring
    matrix, as in the authors' code. On as many threads as the backend's, by default
    all cores.
    """
    import torch

    from benchmarks.plain_isqrt_cov import PublishedRoot, centred, published, root

    batch, height, width, channels = MAPS
    random = np.random.default_rng(0)
    shape = batch, channels, height * width
    maps = torch.tensor(random.normal(size=shape).astype("float32"))
    maps.requires_grad_()
    length = channels * (channels + 1) // 2
    cotangent = random.normal(size=(batch, length)).astype("float32")
    cotangent = torch.tensor(cotangent)
    rows, columns = torch.triu_indices(channels, channels)

    def step(covariance, root):
        def gradient():
            matrices = root(covariance(maps), ITERATIONS)
            outputs = matrices[:, rows, columns]
            (found,) = torch.autograd.grad(outputs, maps, cotangent)
            return found[0, 0, 0].item()

        return gradient

    return {
        (AUTOGRAD, ""): step(centred, root),
        (PUBLISHED, ""): step(published, PublishedRoot.apply),
    }
