"""Peak memory of PerturbedArgmax, in a process of its own."""

import resource
import sys

import keras

from benchmarks.measure import Measurement
from benchmarks.soft_maximizers import gradient_step
from keras_attn.layers.perturbed_argmax import PerturbedArgmax

MAPS = (8, 32, 32, 64)
SAMPLES, QUICK_SAMPLES = 600, 60
LIMIT = 2000.0  # MB


def run(quick):
    """Measurements of the growth and of the whole process."""
    samples = QUICK_SAMPLES if quick else SAMPLES
    # Targets are for the full number.
    suffix = f", {samples} samples" if quick else ""
    xla = "on" if keras.backend.backend() == "jax" else "off"
    # The same layer on a map of one cell, which measures the backend's own needs.
    forward_backward((1, 1, 1, 4), samples)
    before = peak_memory()
    forward_backward(MAPS, samples)
    after = peak_memory()
    return [
        Measurement(case + suffix, value, "MB", value / LIMIT, xla)
        for case, value in {"growth": after - before, "whole process": after}.items()
    ]


def forward_backward(shape, samples):
    gradient_step([PerturbedArgmax(samples=samples, seed=0)], shape, compiled=False)()


def peak_memory():
    """Largest resident memory of this process so far, in MB of the host."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
