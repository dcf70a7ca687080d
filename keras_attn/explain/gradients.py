"""Gradients on every backend: the one thing that Keras has no operation for."""

import importlib

import keras
from keras import ops


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
