"""Gradients on every backend, for which Keras has no operation."""

import contextlib
import importlib

import keras
from keras import ops

# Tried one after the other. Gradients below 6e-8 vanish in float16; scores are scaled
# up as far as nothing overflows.
HALF_SCALES = (2.0**15, 2.0**10, 2.0**5, 1.0)


def gradient(function, tensor):
    """The gradient of a scalar function at a tensor.

    Args:
        function: From a tensor to a scalar tensor, in operations of Keras or calls of
            its models.
        tensor: Floating-point tensor, or a list of such.

    Returns:
        Tensor of the same shape and dtype, or a list; zeros where the function does not
        depend on it.
    """
    tensor = keras.tree.map_structure(ops.convert_to_tensor, tensor)
    return _GRADIENTS[keras.backend.backend()](function, tensor)


def gradient_in_float32(function, tensor, is_half):
    """The gradient, in float32, of a float32 scalar that may be computed in float16.

    Args:
        function, tensor: See `gradient`.
        is_half: Whether float16 is in between, where small gradients vanish.
    """
    for scale in HALF_SCALES if is_half else (1.0,):
        slope = gradient(lambda x, scale=scale: scale * function(x), tensor)
        slope = keras.tree.map_structure(
            lambda each, scale=scale: ops.cast(each, "float32") / scale, slope
        )
        flat = keras.tree.flatten(slope)
        if not is_half or all(bool(ops.all(ops.isfinite(each))) for each in flat):
            break
    return slope


def compiled(function):
    """A function of tensors, compiled for many calls with the same shapes.

    PyTorch runs it as it is.
    """
    return _COMPILERS[keras.backend.backend()](function)


def no_gradients():
    """Context in which nothing is kept for gradients."""
    if keras.backend.backend() == "torch":
        return _backend().no_grad()
    return contextlib.nullcontext()


def _of_tensorflow(function, tensor):
    tensorflow = _backend()
    with tensorflow.GradientTape() as tape:
        tape.watch(tensor)
        value = function(tensor)
    unconnected = tensorflow.UnconnectedGradients.ZERO
    return tape.gradient(value, tensor, unconnected_gradients=unconnected)


def _of_jax(function, tensor):
    return _backend().grad(function)(tensor)


def _of_torch(function, tensor):
    torch = _backend()
    with torch.enable_grad():
        leaf = keras.tree.map_structure(
            lambda each: each.detach().requires_grad_(True), tensor
        )
        value, flat = function(leaf), keras.tree.flatten(leaf)
        found = [None] * len(flat)
        if value.requires_grad:
            found = torch.autograd.grad(value, flat, allow_unused=True)
    found = [
        torch.zeros_like(each) if slope is None else slope
        for each, slope in zip(flat, found, strict=True)
    ]
    return keras.tree.pack_sequence_as(tensor, found)


def _backend():
    """The library that Keras runs on, which it has imported already."""
    return importlib.import_module(keras.backend.backend())


_GRADIENTS = {
    "tensorflow": _of_tensorflow,
    "jax": _of_jax,
    "torch": _of_torch,
}
_COMPILERS = {
    "tensorflow": lambda function: _backend().function(function, autograph=False),
    "jax": lambda function: _backend().jit(function),
    "torch": lambda function: function,
}
