"""The vision transformer of DINO, and the attention inside it."""

from collections.abc import Sequence
from typing import Literal

import keras
import numpy as np
from keras import layers, ops

from keras_attn._checks import did_you_mean, pair
from keras_attn.graph.keras_graph import node_of
from keras_attn.layers.attention_map import AttentionMap
from keras_attn.layers.patch_embedding import PatchEmbedding
from keras_attn.layers.position_embedding import PositionEmbedding
from keras_attn.layers.transformer_block import EPSILON, TransformerBlock
from keras_attn.models import building
from keras_attn.models.attention_reader import read_attention

# Width, number of blocks, number of heads. "mini" is for small images and processors.
VIT_SIZES = {
    "mini": (128, 3, 4),
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
}
# The size of the images of ImageNet, for models that leave theirs open.
USUAL_SIZE = 224


def vit(
    size: str | tuple[int, int, int] = "small",
    patch_size: int | tuple[int, int] = 16,
    input_shape: tuple = (224, 224, 3),
    num_classes: int | None = None,
    position_size: int | tuple[int, int] | None = None,
    position_offset: float = 0.0,
    drop_path: float = 0.0,
    mlp_ratio: float = 4,
    input_tensor=None,
    name: str = "vit",
) -> keras.Model:
    """Vision transformer with a class token, as DINO trains it.

    Dosovitskiy et al., "An Image is Worth 16x16 Words", and Caron et al., "Emerging
    Properties in Self-Supervised Vision Transformers": blocks that normalise first
    (LayerNorm's epsilon 1e-6), attention with biases, exact GELU, learned positions.

    Without classes, at 224 x 224, ViT-B/8 has 85,807,872 parameters, ViT-S/8
    21,670,272 and ViT-Ti/8 5,526,720.

    Args:
        size: `"mini"`, `"tiny"`, `"small"`, `"base"`, or `(width, blocks, num_heads)`.
        patch_size: Side of the patches, an integer or `(rows, columns)`.
        input_shape: `(height, width, channels)`, the sizes divisible by the patch's.
            They may be `None`: then the model takes images of any size, one size per
            call, as multi-crop training does.
        num_classes: Number of classes, for the output `logits`.
        position_size: Size of the images that the positions are learned for, an
            integer or `(height, width)`; by default that of `input_shape`, 224 where
            it is open. For images of another size they are interpolated.
        position_offset: See `PositionEmbedding`.
        drop_path: Share of left out branches in the last block, see
            `TransformerBlock`; it grows linearly from 0 in the first.
        mlp_ratio: See `TransformerBlock`.
        input_tensor: Tensor of normalised images to build on instead of a new input.
        name: Name of the model.

    Returns:
        Functional model with the outputs `embedding` `(batch, width)`, the class token
        after the last normalisation, float32; `tokens` `(batch, 1 + patches, width)`,
        all of them; and, with `num_classes`, `logits` `(batch, num_classes)`, float32.
        Its layers are `patches`, `positions`, `block_1`, `block_2`, ... and
        `normalization`.

    Raises:
        ValueError: For an unknown size, or images that patches do not tile.

    Example:

    >>> model = vit("tiny", 16, (224, 96, 3), num_classes=10)
    >>> {name: tensor.shape for name, tensor in model.output.items()}
    {'embedding': (None, 192), 'tokens': (None, 85, 192), 'logits': (None, 10)}
    """
    width, depth, num_heads = _sizes(size)
    inputs = building.image_input(input_shape, input_tensor)
    patches = PatchEmbedding(width, patch_size, name="patches")
    usual = tuple(side or USUAL_SIZE for side in inputs.shape[1:3])
    learned = usual if position_size is None else position_size
    grid = _grid(pair("position_size", learned, 1), patches.patch_size)
    tokens = patches(inputs)
    tokens = PositionEmbedding(grid, position_offset, name="positions")(tokens)
    for index, rate in enumerate(np.linspace(0.0, drop_path, depth)):
        tokens = TransformerBlock(
            num_heads, mlp_ratio, drop_path=float(rate), name=f"block_{index + 1}"
        )(tokens)
    tokens = layers.LayerNormalization(epsilon=EPSILON, name="normalization")(tokens)
    embedding = layers.Identity(dtype="float32", name="embedding")(tokens[:, 0])
    outputs = {"embedding": embedding, "tokens": tokens}
    if num_classes is not None:
        outputs["logits"] = layers.Dense(
            num_classes,
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            dtype="float32",
            name="logits",
        )(embedding)
    (source,) = keras.utils.get_source_inputs(inputs)
    return keras.Model(source, outputs, name=name)


def attention_of(
    model: keras.Model, block: int | str = -1, name: str = "attention"
) -> keras.Model:
    """The attention of all heads in one block of a transformer.

    Args:
        model: Model of `vit`.
        block: Index of the block, from 0, or from -1 backwards; or its name, such as
            `"block_12"`.
        name: Name of the new model.

    Returns:
        Functional model from the same input to `(batch, heads, tokens, tokens)`; token
        0 is the class token. It shares its layers with `model` and runs nothing behind
        that attention.

    Raises:
        ValueError: If `model` is no such model or has no such block.

    Example:

    >>> attention_of(vit("tiny"), "block_3").output.shape
    (None, 3, 197, 197)
    """
    layer, tokens, _ = _find(model, block)
    return keras.Model(model.inputs[0], layer(tokens, output="attention"), name=name)


def attention_map_model(
    model: keras.Model,
    aggregate: Literal["mean", "sum", "max", "min"] | None = None,
    normalize: Literal["minmax", "scale"] | None = None,
    factor: int | tuple[int, int] = 1,
    interpolation: Literal["nearest", "bilinear"] = "nearest",
    block: int | str = -1,
    heads: Sequence[int | tuple[int | str, int]] | None = None,
    name: str = "attention_map",
) -> keras.Model:
    """Model from images to the attention of the class token, head by head.

    Attention-masked residuals, section 3. Of the block of a `vit` only one row of
    the attention is computed: no keys, no values, no MLP, and nothing behind it. Other
    transformers run as a whole.

    Args:
        model: Model of `vit`, or any functional transformer with one input, such as
            KerasHub's; its layers are shared.
        aggregate, normalize, factor, interpolation: See `AttentionMap`. By default the
            attention of each head as it is, one cell per patch.
        block: See `keras_attn.explain.attention_maps`.
        heads: Heads of the block to take, or pairs `(block, head)` of any blocks, as
            `keras_attn.explain.object_heads` chooses them; `None`: all of the block.
        name: Name of the new model.

    Returns:
        Functional model from the same input to `(batch, rows, columns, channels)`,
        float32. Without aggregation, normalisation and factor the cells of one head
        sum to 1 minus the attention of the class token to itself.

    Raises:
        ValueError: As `keras_attn.explain.attention_maps`, or for an unknown argument.

    Example:

    >>> model = attention_map_model(vit("tiny", 8, (224, 96, 3)))
    >>> model.output.shape
    (None, 28, 12, 3)
    """
    pairs = _pairs(heads, block)
    blocks = list(dict.fromkeys(each for each, _ in pairs)) if pairs else [block]
    if _is_vit(model):
        (inputs,) = model.inputs
        attentions = []
        for each in blocks:
            layer, tokens, patches = _find(model, each)
            attentions.append(layer(tokens, output="class_attention"))
        counts = [attention.shape[1] for attention in attentions]
        attention = ops.concatenate(attentions, 1) if attentions[1:] else attentions[0]
    else:
        inputs, attention, patches, counts = read_attention(model, blocks)
    to_map = AttentionMap(
        aggregate,
        normalize,
        factor,
        interpolation,
        _places(pairs, dict(zip(blocks, counts, strict=True))),
        dtype="float32",
        name="attention_map",
    )
    return keras.Model(inputs, to_map([attention, patches]), name=name)


def attention_map(
    model: keras.Model,
    images,
    aggregate: Literal["mean", "sum", "max", "min"] | None = "mean",
    normalize: bool | Literal["minmax", "scale"] | None = True,
    batch_size: int = 32,
    **options,
) -> np.ndarray:
    """Attention maps of images, in one call.

    Args:
        model: Model of `vit`.
        images: Normalised images `(images, height, width, channels)`.
        aggregate: See `attention_map_model`.
        normalize: See `attention_map_model`; `True` is `"minmax"`.
        batch_size: Number of images that are computed together.
        **options: Other arguments of `attention_map_model`. To compute maps repeatedly,
            build that model once and reuse it.

    Returns:
        NumPy array `(images, rows, columns, channels)`, float32.

    Example:

    >>> images = np.random.normal(size=(5, 224, 96, 3))
    >>> attention_map(vit("tiny", 8, (224, 96, 3)), images).shape
    (5, 28, 12, 1)
    """
    if isinstance(normalize, bool):
        normalize = "minmax" if normalize else None
    maps = attention_map_model(model, aggregate, normalize, **options)
    batches = [
        ops.convert_to_numpy(maps(images[start : start + batch_size], training=False))
        for start in range(0, len(images), batch_size)
    ]
    return np.concatenate(batches)


def _sizes(size):
    """Width, number of blocks and number of heads."""
    if isinstance(size, (tuple, list)):
        if len(size) == 3 and all(isinstance(number, int) for number in size):
            if min(size) > 0:
                return tuple(size)
    elif size in VIT_SIZES:
        return VIT_SIZES[size]
    hint = did_you_mean(size, VIT_SIZES)
    raise ValueError(
        f"Expected `size` to be one of {tuple(VIT_SIZES)}, or three positive integers "
        f"(width, blocks, num_heads). Received: size={size!r}{hint}"
    )


def _grid(image_size, patch_size):
    """Numbers of rows and columns of patches that positions are learned for."""
    if any(side % patch for side, patch in zip(image_size, patch_size, strict=True)):
        raise ValueError(
            "Expected sizes of images that are divisible by those of the patch. "
            f"Received: patch_size={patch_size} and images of "
            f"{image_size[0]} x {image_size[1]} pixels"
        )
    return tuple(
        side // patch for side, patch in zip(image_size, patch_size, strict=True)
    )


def _pairs(heads, block):
    """Pairs `(block, head)` of the argument `heads`; `None` for all heads."""
    if heads is None:
        return None
    pairs = [(block, head) if isinstance(head, int) else tuple(head) for head in heads]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise ValueError(
            "Expected `heads` to be indices of heads, or pairs (block, head). "
            f"Received: heads={heads!r}"
        )
    return pairs


def _places(pairs, counts):
    """Indices of heads among those of several blocks, whose numbers are `counts`."""
    if pairs is None:
        return None
    for block, head in pairs:
        if not isinstance(head, int) or not 0 <= head < counts[block]:
            raise ValueError(
                f"Expected heads in 0..{counts[block] - 1} of block {block!r}. "
                f"Received: head {head!r}"
            )
    starts = dict(zip(counts, np.cumsum([0, *counts.values()]).tolist(), strict=False))
    return [starts[block] + head for block, head in pairs]


def _is_vit(model):
    """Test for a model of `vit`, with all of its blocks in its graph."""
    output = getattr(model, "output", None)
    names = output if isinstance(output, dict) else ()
    kinds = [type(layer) for layer in model.layers]
    return "tokens" in names and PatchEmbedding in kinds and TransformerBlock in kinds


def _find(model, block):
    """A block, the tokens that it takes in this model, and the map of patches.

    The graph is followed from its end, since layers that other models share are in
    several graphs.
    """
    output = getattr(model, "output", None)
    tensor = output.get("tokens") if isinstance(output, dict) else None
    blocks = []
    while tensor is not None:
        node = node_of(tensor)
        operation = node.operation
        if isinstance(operation, PatchEmbedding):
            break
        inputs = node.input_tensors
        tensor = inputs[0] if inputs else None
        if isinstance(operation, TransformerBlock):
            blocks.insert(0, (operation, tensor))
    if tensor is None or not blocks:
        raise ValueError(f"Expected a model of vit(). Received: {model}")
    names = [layer.name for layer, _ in blocks]
    if isinstance(block, str) and block in names:
        block = names.index(block)
    if not isinstance(block, int) or not -len(blocks) <= block < len(blocks):
        raise ValueError(
            f"Expected `block` to be an index or name of the {len(blocks)} blocks, "
            f"such as -1 or {names[-1]!r}. Received: block={block!r}"
        )
    return (*blocks[block], tensor)
