"""Maps whose second moments have no inverse, or that half types cannot hold."""

import keras
import numpy as np
from keras import ops

from tests.harness import gradients, run, to_numpy

CELLS, CHANNELS = (7, 3), 5


def difficult_maps():
    """Pairs of maps `(7, 3, 5)`: zero and constant, one cell, rank one, ..."""
    random = np.random.default_rng(0)
    plain = random.normal(size=(*CELLS, CHANNELS))
    zero = np.zeros_like(plain)
    one_cell = zero.copy()
    one_cell[2, 1] = 1.0
    dead = np.maximum(plain, 0)
    dead[..., 1:4] = 0.0
    rank_one = plain[..., :1] * np.arange(1.0, 6.0)
    equal_channels = np.repeat(plain[..., :1], CHANNELS, axis=-1)
    # Pairs, since JAX compiles every operation anew for another batch size.
    pairs = [
        (zero, zero + 3.7),
        (one_cell, dead),
        (rank_one, equal_channels),
        (1e4 * plain, 1e-3 * plain),
    ]
    return [np.stack(pair).astype("float32") for pair in pairs]


def check_difficult_maps(layer_class, arguments, largest_gradient):
    """Finite descriptors, and gradients of at most that size."""
    layer = layer_class(**arguments)
    for number, maps in enumerate(difficult_maps()):
        descriptors = run(layer, maps)
        assert np.all(np.isfinite(descriptors))
        cotangent = np.random.default_rng(1).normal(size=descriptors.shape)
        cotangent = cotangent.astype("float32")
        (gradient,) = gradients(
            lambda x: ops.sum(ops.multiply(layer(x), cotangent)),  # noqa: B023
            maps,
        )
        assert np.all(np.isfinite(gradient))
        assert np.abs(gradient).max() < largest_gradient
        if number == 0:
            np.testing.assert_array_equal(gradient[0], 0.0)
        else:
            assert np.all(np.abs(gradient).max(axis=(1, 2, 3)) > 0)


def check_half_precision(layer_class, arguments):
    """Products that overflow in float16 are computed in float32."""
    maps = 300.0 + 30.0 * difficult_maps()[1]
    half = ops.cast(maps, "float16")
    wanted = run(layer_class(**arguments), ops.cast(half, "float32"))
    found = layer_class(**arguments, dtype="mixed_float16")(half)
    assert keras.backend.standardize_dtype(found.dtype) == "float16"
    np.testing.assert_allclose(to_numpy(found), wanted, rtol=2e-3, atol=1e-3)
