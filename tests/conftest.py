"""Every test starts from the same random state and from float32."""

import contextlib
import functools
import gc
import importlib.metadata
import os
import sys
import types
from unittest import mock

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
# Locations of operations, which JAX takes from the stack.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

# Keras imports it for wrappers that no test uses.
sys.modules["sklearn"] = None

# tf2onnx copies a graph before each rewriting, to go back to it after an error.
os.environ.setdefault("TF2ONNX_CATCH_ERRORS", "False")
# Folders whose files take longest; with these first, no process waits for the other.
LONGEST = ("training", "benchmarks", "test_", "keras_attn/layers", "keras_attn/models")


def pytest_configure(config):
    """Share what JAX compiles between processes, and with later runs of the tests."""
    # JAX 0.4 computes something else with a program that it has read.
    if hasattr(config, "cache") and new_compiler():
        set_default = os.environ.setdefault
        set_default("JAX_COMPILATION_CACHE_DIR", str(config.cache.mkdir("jax")))
        set_default("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        set_default("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    def rank(item):
        place = item.nodeid.removeprefix("tests/")
        starts = [place.startswith(each) for each in LONGEST]
        return [*starts, True].index(True)

    items.sort(key=rank)


def pytest_collection_finish():
    """Garbage is looked for among what the tests make alone; Keras is imported."""
    sys.modules.pop("sklearn", None)
    gc.freeze()
    gc.set_threshold(20_000)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def plain_graphs():
    """TensorFlow rewrites no graph: it takes longer than it saves on small arrays.

    It also keeps one stack for all operations, and what it saves is not traced anew,
    which matters to variables on several devices alone.
    """
    import keras

    with contextlib.ExitStack() as stack:
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf
            from tensorflow.python.eager.polymorphic_function import function_context
            from tensorflow.python.util import tf_stack

            options = {"disable_meta_optimizer": True}
            tf.config.optimizer.set_experimental_options(options)
            here = tf_stack.extract_stack()
            saves = types.SimpleNamespace(in_save_context=lambda: False)
            for holder, name, value in (
                (tf_stack, "extract_stack", lambda stacklevel=1: here),
                (function_context, "save_context", saves),
            ):
                stack.enter_context(mock.patch.object(holder, name, value))
        yield


@pytest.fixture(scope="session", autouse=True)
def plain_layers():
    """Keras does not look through the memory of all tests to forget a name or a weight.

    And JAX does not compile a program for the initial weights of each shape.
    """
    import keras

    def delete(layer, name):
        with mock.patch.object(gc, "collect"):
            forget(layer, name)

    forget = keras.layers.Layer.__delattr__
    clear = functools.partial(keras.backend.clear_session, free_memory=False)
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(keras.backend, "clear_session", clear))
        stack.enter_context(
            mock.patch.object(keras.layers.Layer, "__delattr__", delete)
        )
        if keras.backend.backend() == "jax":
            from tests.numpy_random import numpy_weights

            stack.enter_context(numpy_weights())
        yield


@pytest.fixture(scope="module", autouse=True)
def fresh_compilers():
    """Each file fills the caches of compiled operations anew.

    JAX writes all programs of a file in one context, which takes long to make.
    """
    import keras

    keras.utils.set_random_seed(0)
    if keras.backend.backend() != "jax":
        yield
        return
    from jax._src.interpreters import mlir

    make = functools.cache(mlir.make_ir_context)
    with mock.patch.object(mlir, "make_ir_context", make):
        yield


@pytest.fixture(autouse=True)
def fresh_state():
    # Here, since the process that only hands out tests does without.
    import keras

    with contextlib.ExitStack() as stack:
        if keras.backend.backend() == "tensorflow":
            # A new seed would empty the cache of operations and functions, for the sake
            # of those that keep a random state, which nothing here uses.
            from tensorflow.python import pywrap_tfe

            stack.enter_context(mock.patch.object(pywrap_tfe, "TFE_ContextClearCaches"))
        keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("float32")
    yield
    keras.config.set_dtype_policy("float32")
