"""Blocks by name: layers that give back a map of the shape that they take."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import keras

from keras_attn._checks import did_you_mean, one_of

LAYER_ARGUMENTS = ("name", "dtype", "trainable")


@dataclasses.dataclass(frozen=True)
class _Block:
    layer: Any
    for_map: Callable | None
    defaults: dict[str, Any]

    def arguments(self):
        """Dict from the names of the layer's arguments to their parameters."""
        parameters = inspect.signature(self.layer.__init__).parameters
        own = list(parameters.items())[1:]
        return {name: each for name, each in own if each.kind != each.VAR_KEYWORD}


_BLOCKS: dict[str, _Block] = {}


def register_block(
    block: str, for_map: Callable | None = None, **defaults: Any
) -> Callable[[type], type]:
    """Decorator of a layer that makes it a block with a name.

    The layer takes a map and returns one of the same shape, or a dict with such
    `features`. If a new layer is the identity already, it says so by the attribute
    `starts_as_identity`.

    Args:
        block: The name.
        for_map: Function from the shape of a map to arguments that suit it.
        **defaults: Arguments of the layer that differ from its own defaults.

    Raises:
        ValueError: If another layer has the name.

    Example:

    >>> @keras_attn.layers.register_block("double")
    ... class Double(keras.layers.Layer):
    ...     def call(self, inputs):
    ...         return 2 * inputs
    """

    def register(layer):
        known = _BLOCKS.get(block)
        if known and known.layer.__qualname__ != layer.__qualname__:
            raise ValueError(
                "Expected a name that no block has. "
                f"Received: block={block!r}, the name of {known.layer.__name__}"
            )
        _BLOCKS[block] = _Block(layer, for_map, defaults)
        return layer

    return register


def list_blocks() -> list[str]:
    """The names of the blocks that `insert` and `get_block` take, sorted."""
    return sorted(_BLOCKS)


def get_block(
    block: str, /, input_shape: tuple | None = None, **arguments: Any
) -> keras.layers.Layer:
    """A new layer, by the name of the block.

    Args:
        block: One of `list_blocks()`.
        input_shape: Shape of the map, with the batch; some blocks choose defaults
            that suit it.
        **arguments: Arguments of the layer, also `name`, `dtype` and `trainable`.

    Raises:
        ValueError: If there is no such block or argument, or one that the block needs
            is missing.

    Example:

    >>> get_block("class_embedding", num_classes=10).window
    >>> get_block("volumetric_transformer", (None, 7, 7, 112)).groups
    28
    """
    one_of("block", block, list_blocks())
    entry = _BLOCKS[block]
    given = {**entry.defaults}
    if input_shape is not None and entry.for_map is not None:
        given |= entry.for_map(tuple(input_shape))
    given |= arguments
    known = entry.arguments()
    unknown = sorted({*given} - {*known, *LAYER_ARGUMENTS})
    if unknown:
        raise ValueError(
            f"Expected arguments of block {block!r}: {', '.join(known)}. "
            f"Received: {unknown[0]}={given[unknown[0]]!r}"
            f"{did_you_mean(unknown[0], known)}"
        )
    missing = [
        name
        for name, each in known.items()
        if each.default is each.empty and name not in given
    ]
    if missing:
        received = ", ".join(name for name in arguments if name in known)
        raise ValueError(
            f"Expected the arguments that block {block!r} needs: {', '.join(missing)}. "
            f"Received: {received or 'none of its arguments'}"
        )
    return entry.layer(**given)
