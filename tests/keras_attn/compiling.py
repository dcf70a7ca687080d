"""Functions as single programs, where operations one by one take too long."""

import keras


def compiled(function, settings=0):
    """The function itself, or compiled as a whole on JAX.

    JAX compiles every single operation for every shape, which takes most of the time
    of a test on small arrays.

    Args:
        function: Function of one tensor (or several, without `settings`).
        settings: Number of arguments after the first, which are no tensors.
    """
    if keras.backend.backend() != "jax":
        return function
    import jax

    return jax.jit(function, static_argnums=range(1, 1 + settings))
