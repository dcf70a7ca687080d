"""One call that checks everything a public layer promises, on any backend.

`check_layer` runs Keras's own `run_layer_test` (private to Keras, so it is used
here only) and then what that test leaves out: complete configs, `.keras` files,
gradients, dynamic batches, both mixed precisions, XLA and the SavedModel export.
"""

import contextlib
import functools
import inspect
import os
import tempfile
import warnings
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import pytest
from keras import ops, tree
from keras.src.backend.common import dtypes
from keras.src.dtype_policies.dtype_policy import QUANTIZATION_MODES
from keras.src.legacy.saving.legacy_h5_format import (
    save_weights_to_hdf5_group as save_legacy_weights,  # noqa: F401
)
from keras.src.testing import TestCase

from keras_attn.graph.keras_graph import traced_once, unweighted  # noqa: F401
from tests.keras_attn.compiling import compiled

PACKAGE = "keras_attn"
# Half the distance of central differences, in float64.
STEP = 1e-6
# A batch size that no shape under test has.
OTHER_BATCH = 4


def check_layer(
    layer_class,
    init_kwargs,
    input_shape,
    *,
    other_shapes=(),
    keeps_default=(),
    float32_outputs=(),
    integer_outputs=(),
    stochastic=False,
    differentiable=True,
    exportable=True,
    compilable=True,
    tolerance=1e-5,
    **run_layer_test_kwargs,
):
    """Check a layer class; fails with an AssertionError that names the promise.

    Args:
        layer_class: The public layer class.
        init_kwargs: Arguments, with a value other than the default for every
            parameter of `__init__` but those named in `keeps_default`.
        input_shape: Shape with its batch size, or a list of shapes for a layer
            that takes a list or dict. Distinct primes find swapped axes.
        other_shapes: More input shapes for `compute_output_shape`.
        keeps_default: Parameters that may keep their default in `init_kwargs`.
        float32_outputs: Keys (or positions) of outputs that stay float32 under
            mixed precision.
        integer_outputs: Keys of outputs that are no floats.
        stochastic: The layer draws random numbers when called. Its generators
            are reset before outputs are compared, and compiled or exported
            outputs, which may draw other numbers, are compared by shape only.
        differentiable, exportable, compilable: What to leave out.
        tolerance: Absolute and relative tolerance on float32 outputs.
        **run_layer_test_kwargs: For `run_layer_test`.
    """
    inputs = example(input_shape)
    layer = layer_class(**init_kwargs)
    output = layer(inputs)
    # Keras's own training step takes a single input and a single output only.
    single = not tree.is_nested(output) and not isinstance(input_shape, list)
    run_layer_test_kwargs.setdefault("run_training_check", single)
    # Part of `check_mixed_precision`.
    run_layer_test_kwargs["run_mixed_precision_check"] = False
    # Nor does it call a layer with a dict; then it checks the configuration alone.
    called_with = None if isinstance(input_shape, dict) else input_shape
    with warnings.catch_warnings():
        # Of how it trains, and of layers without weights.
        warnings.filterwarnings("ignore", ".*(shuffle=True|any trainable weights)")
        TestCase().run_layer_test(
            layer_class, init_kwargs, input_shape=called_with, **run_layer_test_kwargs
        )
    check_configuration(layer_class, init_kwargs, keeps_default)
    check_round_trip(layer, inputs, tolerance)
    for shape in (input_shape, *other_shapes):
        check_output_shape(layer_class(**init_kwargs), shape)
    check_mixed_precision(
        layer_class, init_kwargs, input_shape, float32_outputs, integer_outputs
    )
    check_data_format(layer, inputs)
    check_single_dtypes(layer, inputs, float32_outputs, stochastic)
    check_model(layer, input_shape, tolerance)
    if differentiable:
        check_finite_gradients(layer, inputs)
    if keras.backend.backend() == "tensorflow":
        if compilable:
            check_compiled(layer, inputs, tolerance, stochastic)
        if exportable:
            check_exported(layer, input_shape, tolerance, stochastic)


# ---- the single promises -----------------------------------------------------


def check_configuration(layer_class, init_kwargs, keeps_default=()):
    """Every argument is tested, kept under its name, and in the config."""
    registered = keras.saving.get_registered_name(layer_class)
    assert registered == f"{PACKAGE}>{layer_class.__name__}", (
        f"{layer_class.__name__} is registered as {registered!r}, not under "
        f"the package {PACKAGE!r}."
    )
    layer = layer_class(**init_kwargs)
    config = layer.get_config()
    revived = layer_class.from_config(config)
    for name, default in own_parameters(layer_class).items():
        if name not in keeps_default:
            assert name in init_kwargs and not same(init_kwargs[name], default), (
                f"The test of {layer_class.__name__} gives `{name}` no value other "
                f"than its default {default!r}."
            )
        assert name in config, f"`{name}` is missing from get_config()."
        assert hasattr(layer, name), f"`{name}` is no attribute of the layer."
        assert same(getattr(layer, name), getattr(revived, name)), (
            f"`{name}` is {getattr(layer, name)!r} before and "
            f"{getattr(revived, name)!r} after from_config."
        )


def check_round_trip(layer, inputs, tolerance=1e-5):
    """A layer revived from its config computes the same with the same weights."""
    revived = type(layer).from_config(layer.get_config())
    run(revived, inputs)
    randomize(layer)
    revived.set_weights(layer.get_weights())
    assert_same_output(run(revived, inputs), run(layer, inputs), tolerance)


def check_output_shape(layer, input_shape):
    """`compute_output_shape` is right, before and after building."""
    promised = layer.compute_output_shape(input_shape)
    inputs = example(input_shape)
    if keras.backend.backend() == "jax":
        import jax

        functional(layer, input_shape)  # builds it
        output = jax.eval_shape(stateless(layer), inputs)
    else:
        output = layer(inputs)
    actual = tree.map_structure(lambda x: tuple(x.shape), output)
    assert shapes(promised) == shapes(actual), (
        f"compute_output_shape({input_shape}) promises {promised}, the layer "
        f"returns {actual}."
    )
    assert shapes(layer.compute_output_shape(input_shape)) == shapes(actual)


def check_mixed_precision(
    layer_class, init_kwargs, input_shape, float32_outputs=(), integer_outputs=()
):
    """Outputs have the compute dtype, as promised, weights stay float32."""
    policies = ["mixed_bfloat16", "mixed_float16"]
    if keras.backend.backend() == "torch":
        policies.remove("mixed_float16")  # many float16 CPU kernels are missing
    for policy in policies:
        layer = layer_class(**{**init_kwargs, "dtype": policy})
        promised = tree.flatten(functional(layer, input_shape).output)
        dtype = layer.compute_dtype if layer.autocast else "float32"
        halves = tree.map_shape_structure(
            lambda shape, dtype=dtype: keras.KerasTensor(shape, dtype), input_shape
        )
        spec = tree.flatten(layer.compute_output_spec(halves))
        assert [each.dtype for each in spec] == [each.dtype for each in promised]
        output = compiled_layer(layer)(example(input_shape))
        for (path, tensor), symbolic in zip(
            tree.flatten_with_path(output), promised, strict=True
        ):
            wanted = layer.compute_dtype
            if path and path[0] in float32_outputs:
                wanted = "float32"
            dtype = keras.backend.standardize_dtype(tensor.dtype)
            assert symbolic.dtype == dtype, (
                f"Under {policy} the output {path} is {dtype}; the symbolic call "
                f"promises {symbolic.dtype}."
            )
            if path and path[0] in integer_outputs:
                assert not keras.backend.is_float_dtype(dtype), f"{path} is {dtype}."
                continue
            assert dtype == wanted, (
                f"Under {policy} the output {path} is {dtype}, not {wanted}."
            )
            assert np.all(np.isfinite(to_numpy(tensor))), f"{path} under {policy}"
        for weight in layer.weights:
            if keras.backend.is_float_dtype(weight.dtype):
                assert weight.dtype == "float32", f"{weight.path} under {policy}"


def check_data_format(layer, inputs):
    """A layer of maps, without `axis` or `data_format`, refuses channels first."""
    takes_any = hasattr(layer, "axis") or hasattr(layer, "data_format")
    if takes_any or all(len(x.shape) < 4 for x in tree.flatten(inputs)):
        return
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match="channels_first"):
            type(layer).from_config(layer.get_config())(inputs)
    finally:
        keras.config.set_image_data_format("channels_last")


def check_single_dtypes(layer, inputs, float32_outputs=(), stochastic=False):
    """All in float64, as `set_floatx` gives it, or float16: nearly the same values."""
    backend = keras.backend.backend()
    weights, wanted = layer.get_weights(), run(layer, inputs)
    # Eager JAX compiles each operation of each dtype; torch lacks kernels for halves.
    for dtype in ("float64", "float16") if backend == "tensorflow" else ("float64",):
        with floatx(dtype):
            # Taken anew, since reading a network empties its config.
            config = layer.get_config()
            del config["dtype"]
            twin = type(layer).from_config(config)
            functional(twin, tree.map_structure(lambda x: x.shape, inputs))  # builds it
            twin.set_weights(weights)
            reseed(twin)
            casts = functools.partial(ops.cast, dtype=dtype)
            output = compiled_layer(twin)(tree.map_structure(casts, inputs))
            for (path, got), want in zip(
                tree.flatten_with_path(output), tree.flatten(wanted), strict=True
            ):
                if not np.issubdtype(want.dtype, np.floating):
                    continue
                got = ops.convert_to_numpy(got)
                kept = path and path[0] in float32_outputs and got.dtype == "float32"
                assert kept or got.dtype == dtype, f"{path} under {dtype}: {got.dtype}"
                if not stochastic:
                    atol = np.abs(want).max() * (1e-4 if dtype == "float64" else 0.1)
                    np.testing.assert_allclose(got, want, 0, atol, err_msg=dtype)


@contextlib.contextmanager
def floatx(dtype):
    """Layers and operations compute in this dtype where none is given."""
    before = keras.config.floatx(), keras.config.dtype_policy()
    with contextlib.ExitStack() as stack:
        if keras.backend.backend() == "jax":
            stack.enter_context(jax_in_float64())
        if keras.backend.backend() == "torch":
            stack.enter_context(products_in_float64())
        try:
            keras.config.set_floatx(dtype)
            keras.config.set_dtype_policy(dtype)
            yield
        finally:
            keras.config.set_floatx(before[0])
            keras.config.set_dtype_policy(before[1])


def check_model(layer, input_shape, tolerance=1e-5):
    """In a functional model: any batch size, and the same after `.keras` and `.h5`."""
    model = functional(layer, input_shape)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"model.{suffix}" for suffix in ("keras", "h5")]
        for file in files:
            model.save(file)
        loaded, from_h5 = map(keras.saving.load_model, files)
    inputs = example(input_shape)
    wanted = run(layer, inputs)
    for each in (model, loaded, from_h5):
        assert_same_output(run(each, inputs), wanted, tolerance)
    inputs = example(with_batch(input_shape, OTHER_BATCH))
    wanted = run(layer, inputs, compiled_layer(layer))
    assert_same_output(run(loaded, inputs, compiled_layer(loaded)), wanted, tolerance)


def check_finite_gradients(layer, inputs):
    """Finite gradients reach every input and every trainable weight."""
    flat = [to_numpy(x) for x in tree.flatten(inputs)]
    weights = [to_numpy(weight) for weight in layer.trainable_variables]
    state = [variable.value for variable in layer.non_trainable_variables]

    def loss(*tensors):
        given = tree.pack_sequence_as(inputs, list(tensors[: len(flat)]))
        output, _ = layer.stateless_call(list(tensors[len(flat) :]), state, given)
        return sum(ops.sum(ops.square(x)) for x in tree.flatten(output))

    names = [f"input {i}" for i in range(len(flat))]
    names += [variable.path for variable in layer.trainable_variables]
    found = gradients(loss, *flat, *weights)
    for name, gradient in zip(names, found, strict=True):
        assert gradient is not None, f"No gradient reaches {name}."
        assert np.all(np.isfinite(gradient)), f"The gradient of {name} is not finite."


def check_compiled(layer, inputs, tolerance=1e-5, stochastic=False):
    """XLA on the TensorFlow backend gives what eager execution gives."""
    import tensorflow as tf

    eager = run(layer, inputs)
    reseed(layer)
    compiled = tf.function(lambda x: layer(x), jit_compile=True)(inputs)
    assert_same_output(compiled, eager, tolerance, shapes_only=stochastic)


def check_exported(layer, input_shape, tolerance=1e-5, stochastic=False):
    """The SavedModel gives, at any batch size, what the Keras model gives."""
    import tensorflow as tf

    model = functional(layer, input_shape)
    with tempfile.TemporaryDirectory() as folder:
        with traced_once():
            model.export(folder, verbose=False)
        served = tf.saved_model.load(folder)
        for batch in (1, 3):
            inputs = example(with_batch(input_shape, batch))
            assert_same_output(
                served.serve(inputs), run(model, inputs), tolerance, stochastic
            )


# ---- tools, also for tests of single operations --------------------------------


def jax_in_float64():
    """Context in which JAX has float64; the switch was experimental before."""
    try:
        from jax import enable_x64
    except ImportError:
        from jax.experimental import enable_x64
    return enable_x64(True)


def products_in_float64():
    """Context without Keras's rule that two float64 arrays multiply to float32.

    Keras 3.15 makes an exception of TensorFlow alone.
    """
    return mock.patch.dict(dtypes.BIT64_TO_BIT32_DTYPE, {"float64": "float64"})


def simplified_once():
    """Context in which tf2onnx simplifies a graph once, not until nothing changes."""
    pytest.importorskip("tf2onnx")
    from tf2onnx.optimizer.optimizer_base import GraphOptimizerBase

    unchanged = property(lambda self: False, lambda self, value: None)
    return mock.patch.object(GraphOptimizerBase, "graph_been_opt", unchanged)


def slow_on(backend, reason="whole networks compile for minutes, each operation"):
    """Mark of tests that are left out on a backend where they take too long."""
    return pytest.mark.skipif(keras.backend.backend() == backend, reason=reason)


def check_gradients(operation, *inputs, tolerance=1e-5, seed=0):
    """The gradients of an operation are those of central differences, in float64.

    Args:
        operation: Function of tensors that returns a structure of tensors.
        *inputs: Shapes, for normally distributed values, or arrays. Central
            differences need a neighbourhood without kinks.
        tolerance: Largest difference, relative to the length of the gradient.
        seed: Seed of the values, the cotangents and the directions.
    """
    random = np.random.default_rng(seed)
    values = [
        random.standard_normal(x) if isinstance(x, tuple) else np.asarray(x, "float64")
        for x in inputs
    ]
    with float64():
        tensors = map(ops.convert_to_tensor, values)
        results = tree.flatten(compiled(operation)(*tensors))
        cotangents = [random.standard_normal(tuple(x.shape)) for x in results]

        def objective(*tensors):
            pairs = zip(tree.flatten(operation(*tensors)), cotangents, strict=True)
            return sum(ops.sum(ops.multiply(x, each)) for x, each in pairs)

        value = compiled(objective)
        for place, gradient in enumerate(gradients(objective, *values)):
            assert gradient is not None, f"No gradient reaches input {place}."
            for _ in range(3):
                direction = random.standard_normal(values[place].shape)
                ends = []
                for step in (STEP, -STEP):
                    moved = [*values]
                    moved[place] = values[place] + step * direction
                    ends.append(float(value(*map(ops.convert_to_tensor, moved))))
                np.testing.assert_allclose(
                    np.sum(gradient * direction),
                    (ends[0] - ends[1]) / (2 * STEP),
                    atol=tolerance * max(1.0, np.linalg.norm(gradient)),
                    err_msg=f"Gradient of input {place}",
                )


@contextlib.contextmanager
def float64():
    """Operations compute in float64 where they ask for float32."""

    def widened(function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            args = ["float64" if is_float32(x) else x for x in args]
            wide = {k: "float64" if is_float32(x) else x for k, x in kwargs.items()}
            return function(*args, **wide)

        return call

    def is_float32(x):
        return isinstance(x, str) and x == "float32"

    with contextlib.ExitStack() as stack:
        for name in ("cast", "convert_to_tensor"):
            wide = widened(getattr(ops, name))
            stack.enter_context(mock.patch.object(ops, name, wide))
        if keras.backend.backend() == "jax":
            stack.enter_context(jax_in_float64())
        stack.enter_context(products_in_float64())
        yield


def gradients(function, *arrays):
    """Gradients (NumPy, or None where unconnected) of a scalar function."""
    backend = keras.backend.backend()
    tensors = [ops.convert_to_tensor(array) for array in arrays]
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = function(*tensors)
        found = tape.gradient(value, tensors)
    elif backend == "jax":
        import jax

        # In one piece, since every operation by itself would be compiled too; with the
        # emitters that get the gradient of `attention_field` right, unoptimised.
        name = "xla_cpu_use_fusion_emitters"
        options = {}
        if name in os.environ.get("XLA_FLAGS", ""):
            # JAX 0.4 has neither the flag nor the argument.
            options = {"compiler_options": {name: True}}
        gradient = jax.grad(function, argnums=tuple(range(len(tensors))))
        found = jax.jit(gradient, **options)(*tensors)
    else:
        import torch

        leaves = [tensor.detach().requires_grad_(True) for tensor in tensors]
        found = torch.autograd.grad(function(*leaves), leaves, allow_unused=True)
    return [None if x is None else to_numpy(x) for x in found]


def to_numpy(tensor):
    """A float32 (or integer) array, also from half types."""
    if keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype)):
        tensor = ops.cast(tensor, "float32")
    return ops.convert_to_numpy(tensor)


def run(layer, inputs, call=None):
    """Output for these inputs with all random generators at their start."""
    reseed(layer)
    return tree.map_structure(to_numpy, (call or layer)(inputs))


def compiled_layer(layer):
    """A built layer as a function that JAX compiles whole.

    Other backends get the layer itself.
    """
    is_jax = keras.backend.backend() == "jax"
    return compiled(stateless(layer)) if is_jax else layer


def stateless(layer):
    def call(inputs):
        with keras.StatelessScope():
            return layer(inputs)

    return call


def reseed(layer, seed=7):
    for variable in layer.variables:
        if "seed_generator_state" in variable.path:
            variable.assign(ops.cast([seed, 0], variable.dtype))


def randomize(layer, seed=3):
    """Non-trivial weights, so that a dropped zero or one initial value shows."""
    generator = np.random.default_rng(seed)
    layer.set_weights(
        [
            (value + generator.uniform(0.05, 0.3, value.shape)).astype(value.dtype)
            for value in layer.get_weights()
        ]
    )


def change(dense, kind):
    """Gives a built dense layer a LoRA update (`"lora"`), or quantises it."""
    if kind == "lora":
        dense.enable_lora(2)
        dense.lora_kernel_b.assign(np.ones(dense.lora_kernel_b.shape))
    elif kind in QUANTIZATION_MODES:
        dense.quantize(kind)
    else:
        pytest.skip(f"this Keras has no {kind}")


def example(input_shape, seed=11):
    """Standard normal float32 tensors of this shape (or list of shapes)."""
    generator = np.random.default_rng(seed)

    def tensor(shape):
        values = generator.standard_normal(tuple(shape)).astype("float32")
        return ops.convert_to_tensor(values)

    return tree.map_shape_structure(tensor, input_shape)


def functional(layer, input_shape):
    if isinstance(input_shape, dict):
        inputs = {
            name: keras.Input(tuple(shape)[1:], name=name)
            for name, shape in input_shape.items()
        }
    else:
        inputs = tree.map_shape_structure(
            lambda shape: keras.Input(tuple(shape)[1:]), input_shape
        )
    return keras.Model(inputs, layer(inputs))


def with_batch(input_shape, batch):
    return tree.map_shape_structure(
        lambda shape: (batch, *tuple(shape)[1:]), input_shape
    )


def shapes(structure):
    return tree.map_shape_structure(tuple, structure)


def own_parameters(layer_class):
    """Name -> default of the parameters of `__init__`, without `**kwargs`."""
    if layer_class.__init__ is keras.layers.Layer.__init__:
        return {}
    parameters = list(inspect.signature(layer_class.__init__).parameters.values())[1:]
    return {
        parameter.name: parameter.default
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }


def same(first, second):
    if isinstance(first, (int, float, str, tuple, list, dict, type(None))):
        return first == second
    if first is inspect.Parameter.empty or second is inspect.Parameter.empty:
        return first is second
    serialize = keras.saving.serialize_keras_object
    return serialize(first) == serialize(second)


def assert_same_output(actual, wanted, tolerance=1e-5, shapes_only=False):
    tree.assert_same_structure(actual, wanted)
    for (path, got), want in zip(
        tree.flatten_with_path(actual), tree.flatten(wanted), strict=True
    ):
        got = np.asarray(got)
        assert got.shape == want.shape, f"Output {path}: {got.shape}, {want.shape}"
        if not shapes_only:
            np.testing.assert_allclose(
                got, want, tolerance, tolerance, err_msg=f"Output {path}"
            )
