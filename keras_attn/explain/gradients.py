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
        tensor: Floating-point tensor.

    Returns:
        Tensor of the same shape and dtype; zeros if the function does not depend on
        it.
    """
    tensor = ops.convert_to_tensor(tensor)
    return _GRADIENTS[keras.backend.backend()](function, tensor)


def gradient_in_float32(function, tensor, is_half):
    """The gradient, in float32, of a float32 scalar that may be computed in float16.

    Args:
        function, tensor: See `gradient`.
        is_half: Whether float16 is in between, where small gradients vanish.
    """
    if not is_half:
        return ops.cast(gradient(function, tensor), "float32")
    for scale in HALF_SCALES:
        slope = gradient(lambda x, scale=scale: scale * function(x), tensor)
        slope = ops.cast(slope, "float32") / scale
        if bool(ops.all(ops.isfinite(slope))):
            break
    return slope


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
        leaf = tensor.detach().requires_grad_(True)
        value = function(leaf)
        if not value.requires_grad:
            return torch.zeros_like(tensor)
        (found,) = torch.autograd.grad(value, leaf, allow_unused=True)
    return torch.zeros_like(tensor) if found is None else found


def _backend():
    """The library that Keras runs on, which it has imported already."""
    return importlib.import_module(keras.backend.backend())


_GRADIENTS = {
    "tensorflow": _of_tensorflow,
    "jax": _of_jax,
    "torch": _of_torch,
}
