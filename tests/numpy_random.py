"""Initial weights drawn by NumPy, where JAX compiles a program for each shape."""

import sys
from unittest import mock

import keras
import numpy as np


def numpy_weights():
    """Context in which NumPy draws the initial weights of Keras's layers."""
    module = sys.modules[keras.initializers.VarianceScaling.__module__]
    return mock.patch.object(module, "random", NumpyRandom(module.random))


class NumpyRandom:
    """A module like `keras.random`, with distributions that NumPy draws.

    Args:
        module: The module that draws from seeds other than whole numbers, and has all
            other functions.
    """

    def __init__(self, module):
        self.module = module

    def __getattr__(self, name):
        return getattr(self.module, name)

    def uniform(self, shape, minval=0.0, maxval=1.0, dtype=None, seed=None):
        return self._drawn("uniform", shape, minval, maxval, dtype, seed)

    def normal(self, shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
        return self._drawn("normal", shape, mean, stddev, dtype, seed)

    def truncated_normal(self, shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
        return self._drawn("truncated_normal", shape, mean, stddev, dtype, seed)

    def _drawn(self, name, shape, first, second, dtype, seed):
        if not isinstance(seed, int):
            return getattr(self.module, name)(shape, first, second, dtype, seed)
        draw = getattr(np.random.default_rng(seed), name.removeprefix("truncated_"))
        values = np.asarray(draw(first, second, shape))
        if name == "truncated_normal":
            while (outside := np.abs(values - first) > 2 * second).any():
                values[outside] = draw(first, second, outside.sum())
        return keras.ops.convert_to_tensor(values, dtype or keras.config.floatx())
