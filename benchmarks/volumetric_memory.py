"""Peak memory of the volumetric transformer, in a process of its own."""

import keras

from benchmarks.measure import Measurement
from benchmarks.perturbed_memory import peak_memory
from benchmarks.soft_maximizers import gradient_step
from benchmarks.volumetric_transformer import CASE, Warped
from keras_attn.layers.volumetric_transformer import VolumetricTransformer

BATCH, QUICK_BATCH = 8, 2
# After the last convolution of ResNet-50 and of VGG-19 at 448x448.
SIZES = ((14, 14, 2048), (28, 28, 512))


def run(quick):
    """Measurements of the memory that a forward and backward pass adds."""
    batch = QUICK_BATCH if quick else BATCH
    xla = "on" if keras.backend.backend() == "jax" else "off"
    # The same layer on the smallest map, which measures the backend's own needs.
    forward_backward((1, 11, 11, 32))
    before, rows = peak_memory(), []
    for size in SIZES:
        # The peaks of the smaller one come first.
        forward_backward((batch, *size))
        growth = peak_memory() - before
        features = 4e-6 * batch * size[0] * size[1] * size[2]
        case = f"{CASE}, {'x'.join(map(str, size))}"
        rows.append(Measurement(case, growth, "MB", growth / features, xla))
    return rows


def forward_backward(shape):
    gradient_step([Warped(VolumetricTransformer())], shape, compiled=False)()
