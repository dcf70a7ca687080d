"""Every test starts from the same random state and from float32."""

import gc
import importlib.metadata
import os

import pytest

# Nothing that is imported becomes garbage; the collector is back before the first test.
gc.disable()


def new_compiler():
    """XLA of both backends is new enough for the quickest way to compile.

    Others end the process at an unknown flag; and at level 0 that of JAX 0.4.35 gives
    a wrong gradient of `attention_field`.
    """
    lowest = {"tensorflow": (2, 21), "jaxlib": (0, 7)}
    found = {each.name: each.version for each in importlib.metadata.distributions()}
    return all(
        tuple(map(int, found[name].split(".")[:2])) >= version
        for name, version in lowest.items()
        if name in found
    )


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# XLA takes longer to compile small arrays' operations well than to run them badly.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_llvm_disable_expensive_passes=true --xla_backend_optimization_level="
    + ("0 --xla_cpu_use_fusion_emitters=false" if new_compiler() else "1"),
)


def pytest_configure(config):
    """Share what JAX compiles between processes, and with later runs of the tests."""
    if hasattr(config, "cache"):
        set_default = os.environ.setdefault
        set_default("JAX_COMPILATION_CACHE_DIR", str(config.cache.mkdir("jax")))
        set_default("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        set_default("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def pytest_collection_finish():
    """Garbage is looked for among what the tests make alone."""
    gc.freeze()
    gc.set_threshold(20_000)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def plain_graphs():
    """TensorFlow rewrites no graph: it takes longer than it saves on small arrays."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


@pytest.fixture(autouse=True)
def fresh_state():
    # Here, since the process that only hands out tests does without.
    import keras

    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("float32")
    yield
    keras.config.set_dtype_policy("float32")
