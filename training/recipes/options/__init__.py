"""Options of the methods: one module per method, found by its name.

Each has `OPTIONS`, a subclass of `keras_attn.training.recipes.blocks.Options`. The
method itself is the module of the same name in `keras_attn.training.methods`.
"""

import functools
import importlib
import pkgutil

from keras_attn._checks import did_you_mean


def method_names():
    """Names of all methods, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


@functools.cache
def options_of(method):
    """The class of a method's options.

    Raises:
        ValueError: If there is no such method; the message names the nearest.
    """
    known = method_names()
    if method not in known:
        raise ValueError(
            f"Expected method of the recipe to be one of {', '.join(known)}. "
            f"Received: method={method!r}{did_you_mean(method, known)}"
        )
    return importlib.import_module(f"{__name__}.{method}").OPTIONS
