"""Every test starts from the same random state and from float32."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import pytest

if keras.backend.backend() == "jax":
    import jax

    # Tests of small layers spend their time on compiling.
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(autouse=True)
def fresh_state():
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("float32")
    yield
    keras.config.set_dtype_policy("float32")
