"""Putting blocks into somebody's own model, by name or as layers."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_attn.blocks.places import places
from keras_attn.graph.insert import check_graph, insert_blocks, layer_paths
from keras_attn.graph.keras_graph import producer
from keras_attn.layers import IdentityStart, get_block


def insert(
    model: keras.Model,
    at: str | Sequence[str],
    block: str | Callable | Sequence[str | Callable],
    name: str | None = None,
    identity: bool = True,
    **arguments: Any,
) -> keras.Model:
    """A copy of a model with `block` behind one of its layers.

    Everything that read the output of layer `at` reads the block's features instead.
    The copy has layers of its own with the model's weights and names, so inner
    feature maps stay within reach and the given model is left as it is.

    Frozen layers stay frozen, and the block trains. Nothing of a compiled model's
    optimizer, losses and metrics is kept: compile the copy.

    A block by name starts as the identity: the copy answers exactly as the model does
    until it is trained. Where a new layer is not the identity by its own equation, its
    features are faded in by `keras_attn.layers.IdentityStart`, so every named block
    can start so. Only a layer or function that is given as `block` is taken as it is.

    Args:
        model: Functional or sequential model, such as one of `keras.applications`.
        at: Name of the layer behind which the block goes, `"backbone/conv5_out"` where
            it is inside a model that is used as a layer, at any depth; or a list of
            such names. An input's name puts the block in front of the model. `"auto"`
            is the last map of every stage, see `keras_attn.places`.
        block: Name of a block, see `keras_attn.layers.list_blocks`. Or a layer that
            returns features of the shape that it takes, or a dict with such `features`
            and further named outputs, as `ClassEmbedding` does; or a function from a
            tensor to one of these, made of layers, which is called once for each
            place. For several places a list of as many names or layers will do. A layer
            computes in its own dtype; what follows gets the dtype that it had.
        name: Name of the new model; the model's own by default.
        identity: Whether a block by name starts as the identity. `False`: as its paper
            has it.
        **arguments: Arguments of a block by name, see `keras_attn.layers.get_block`.

    Returns:
        Functional model. If a block has further outputs, or the model's output is a
        dict, a dict: the model's own outputs (`logits`, if it is a single tensor; by
        the names of their layers, if it is a list) and the block's further outputs
        under their names. A name that occurs more than once is followed by `_` and
        `at`, with `_` for `/`. A block by name is the layer `"{at}_{block}"`.

    Raises:
        ValueError: If the model has no such layer, calls it more than once or is not
            functional; if a block is in use already, has the name of another layer or
            changes the shape of the map; if there is not one block for each place; if
            there is no block of a name, or not with these arguments.

    Example:

    >>> backbone = keras.applications.ResNet50(
    ...     weights=None, classes=10, classifier_activation=None
    ... )
    >>> model = insert(backbone, "conv4_block6_out", "squeeze_excitation", ratio=8)
    >>> model = insert(
    ...     backbone, "conv4_block6_out", "class_embedding", num_classes=10
    ... )
    >>> sorted(model.output)
    ['logits', 'patch_logits']
    """
    check_graph(model)
    several = isinstance(block, (list, tuple))
    blocks: list[Any] = [*block] if several else [block]  # type: ignore[misc]
    named = [each for each in blocks if isinstance(each, str)]
    if arguments and len(named) < len(blocks):
        raise ValueError(
            "Expected arguments for a block by name only. "
            f"Received: block={block!r}, {', '.join(arguments)}"
        )
    for each in named:
        # Refused before the model is copied.
        get_block(each, **{"name": each, **arguments})
    if isinstance(at, str) and at == "auto":
        at = _stages(model)
    ats: list[Any] = list(at) if isinstance(at, (list, tuple)) else [at]
    if not several:
        blocks = blocks * len(ats)
    if named and len(blocks) != len(ats):
        raise ValueError(
            f"Expected as many blocks as places. Received: at={at!r}, block={block!r}"
        )
    if not named:
        return insert_blocks(model, at, block, name)  # type: ignore[arg-type]
    taken = {path.split("/")[-1] for path in layer_paths(model)}
    blocks = [
        _NamedBlock(each, path, identity, arguments, taken)
        if isinstance(each, str)
        else each
        for each, path in zip(blocks, ats, strict=True)
    ]
    return insert_blocks(model, ats, blocks, name)


def _stages(model):
    found = [place.layer for place in places(model)]
    if not found:
        raise ValueError(
            "Expected a network with stages of maps for at='auto'. "
            f"Received: {model.name!r}, which has none; name a layer"
        )
    return found


class _NamedBlock:
    """Function of a map that makes a block behind it.

    Args:
        taken: Set of the names of layers; the block's are added.
    """

    def __init__(self, block, at, identity, arguments, taken):
        self.block, self.at, self.identity = block, at, identity
        self.arguments = arguments
        self.name = _new_name(f"{str(at).replace('/', '_')}_{block}", taken)
        self.start_name = _new_name(f"{self.name}_start", taken)

    def __call__(self, before):
        if len(before.shape) != 4:
            raise ValueError(
                "Expected `at` to name a layer that returns a map (batch, height, "
                f"width, channels). Received: at={self.at!r}, which returns "
                f"{tuple(before.shape)}"
            )
        dtype = {"dtype": _policy_of(before)}
        block = get_block(
            self.block, before.shape, **{"name": self.name, **dtype, **self.arguments}
        )
        after = block(before)
        features = after["features"] if isinstance(after, dict) else after
        keeps = features.shape[-1] == before.shape[-1]  # else refused by name
        if (
            not self.identity
            or getattr(block, "starts_as_identity", False)
            or not keeps
        ):
            return after
        features = IdentityStart(name=self.start_name, **dtype)([before, features])
        return {**after, "features": features} if isinstance(after, dict) else features


def _new_name(name, taken):
    names = [name, *(f"{name}_{number}" for number in range(2, len(taken) + 3))]
    name = next(each for each in names if each not in taken)
    taken.add(name)
    return name


def _policy_of(tensor):
    """Name of the dtype policy of the layer that a map comes from."""
    policy = getattr(producer(tensor), "dtype_policy", None)
    half = tensor.dtype in ("float16", "bfloat16")
    if half and getattr(policy, "variable_dtype", "float32") != tensor.dtype:
        return f"mixed_{tensor.dtype}"
    return tensor.dtype
