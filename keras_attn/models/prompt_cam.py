"""Prompt-CAM: a frozen transformer whose classes look for their own traits."""

from typing import Literal

import keras
from keras import layers, ops

from keras_attn._checks import integer, one_of, positive_integer
from keras_attn.graph.flat import FlatGraph, run
from keras_attn.layers.class_prompts import ClassPrompts
from keras_attn.layers.patch_embedding import PatchEmbedding
from keras_attn.layers.transformer_block import TransformerBlock
from keras_attn.models.prompted_transformer import PromptedTransformer, find_transformer

VARIANTS = ("deep", "shallow")


def prompt_cam(
    backbone: keras.Model,
    num_classes: int,
    variant: Literal["deep", "shallow"] = "deep",
    blocks: int | None = None,
    name: str = "prompt_cam",
) -> keras.Model:
    """Classifier by one learned prompt per class in a frozen transformer.

    Chowdhury et al., "Prompt-CAM: Making Vision Transformers Interpretable for
    Fine-Grained Analysis": the prompts stand in front of an image's tokens, and the
    score of a class is `w z`, where `z` is what becomes of its own prompt, and `w` is
    the same for all classes. Classes differ only in where their prompts look, so that
    the attention of a class's prompt, head by head, shows its traits.

    Args:
        backbone: Model of `vit`, KerasHub's backbone of ViT, DeiT, DINOv2 or DINOv3, or
            any model with one inside, such as a trained classifier, of images of known
            size. Its layers are shared, and frozen: the prompts and `w` alone learn.
        num_classes: Number of classes.
        variant: `"deep"`: each block has prompts of its own, and what becomes of them
            is left out before the next; those of the last block belong to the classes,
            the others help. `"shallow"`: the classes' prompts enter the first block
            and pass through all.
        blocks: Number of last blocks that have prompts; `None`: all.
        name: Name of the model.

    Returns:
        Functional model from the same input to `logits` `(batch, classes)` and
        `prompt_attention` `(batch, classes, heads, rows, columns)`, the attention of
        each class's prompt to the patches in the last block, float32; with what goes
        to other tokens, each head sums to 1.

    Raises:
        ValueError: If there is no such transformer, or it has fewer blocks.

    Example:

    >>> model = prompt_cam(vit("tiny", 16, (224, 96, 3)), 10)
    >>> {name: tensor.shape for name, tensor in model.output.items()}
    {'logits': (None, 10), 'prompt_attention': (None, 10, 3, 14, 6)}

    Reference: [chowdhury2025] arXiv:2501.09333, sections 2.2 and 2.3.
    """
    num_classes = positive_integer("num_classes", num_classes)
    one_of("variant", variant, VARIANTS)
    graph = FlatGraph(backbone)
    own = _transformer(graph)
    found = own or find_transformer(graph, backbone)
    if not found:
        raise ValueError(
            "Expected a model with a transformer inside, of keras_attn.models.vit or "
            "with its blocks in one encoder layer as KerasHub's, of images of known "
            f"size; others are explained by `legrad`. Received: {backbone.name!r}"
        )
    *parts, grid = found
    chosen = parts[0]
    count = len(chosen) if blocks is None else integer("blocks", blocks, 1)
    if count > len(chosen):
        raise ValueError(
            f"Expected `blocks` to be at most {len(chosen)}, the blocks of "
            f"{backbone.name!r}. Received: blocks={blocks}"
        )
    inputs = [
        keras.Input(batch_shape=each.shape, dtype=each.dtype, name=each.name)
        for each in graph.function.inputs
    ]
    given = dict(zip(graph.inputs, inputs, strict=True))
    prompted = _in_blocks if own else _in_encoder
    scored, attention = prompted(graph, given, count, num_classes, variant, *parts)
    score = layers.EinsumDense(
        "bcw,w->bc", (num_classes,), dtype="float32", name="logits"
    )
    outputs = {
        "logits": score(scored),
        "prompt_attention": _of_prompts(attention, num_classes, *grid),
    }
    for layer in backbone.layers:
        layer.trainable = False
    return keras.Model(inputs[0] if len(inputs) == 1 else inputs, outputs, name=name)


def _in_blocks(graph, given, count, num_classes, variant, chosen, normalization):
    """Prompts behind the last block, and its attention, in a model of `vit`."""
    ((_, start),) = chosen[-count].sources
    tokens = run(graph.steps_to([start], graph.inputs), given, [start])[start]
    for number, step in enumerate(chosen[-count:], len(chosen) - count + 1):
        is_last = number == len(chosen)
        if variant == "deep" or number == len(chosen) - count + 1:
            tokens = ClassPrompts(num_classes, name=f"prompts_{number}")(tokens)
        if is_last:
            # Not with the tokens, see `SelfAttention`; unused, a program leaves it out.
            attention = step.operation(tokens, output="attention")
        tokens = step.operation(tokens)
        if variant == "deep" and not is_last:
            tokens = tokens[:, num_classes:]
    return normalization.operation(tokens[:, :num_classes]), attention


def _in_encoder(
    graph, given, count, num_classes, variant, chosen, encoder, model, heads, key
):
    """The same where the blocks are inside one layer."""
    images = run(graph.steps_to([key], graph.inputs), given, [key])[key]
    names = chosen[-count:]
    layer = PromptedTransformer(
        model, encoder, names, num_classes, variant, heads, name="transformer"
    )
    return layer(images)


def _of_prompts(attention, num_classes, rows, columns):
    """`(batch, classes, heads, rows, columns)` of `(batch, heads, tokens, tokens)`."""
    heads = attention.shape[1]
    attention = attention[:, :, :num_classes, -rows * columns :]
    attention = ops.cast(ops.transpose(attention, (0, 2, 1, 3)), "float32")
    return ops.reshape(attention, (-1, num_classes, heads, rows, columns))


def _transformer(graph):
    """The blocks of `vit` in a graph, its last normalisation, the patches' grid."""
    patches, blocks, normalization = None, [], None
    for step in graph.steps:
        if isinstance(step.operation, PatchEmbedding):
            patches = graph.tensors[step.results[0]].shape[1:3]
        elif isinstance(step.operation, TransformerBlock):
            blocks.append(step)
        elif isinstance(step.operation, layers.LayerNormalization) and blocks:
            if step.sources[0][1] == blocks[-1].results[0]:
                normalization = step
    is_known = patches is not None and None not in patches
    return (blocks, normalization, patches) if is_known and normalization else None
