"""Prompt-CAM: a frozen transformer whose classes look for their own traits."""

from typing import Literal

import keras
from keras import layers, ops

from keras_attn._checks import integer, one_of, positive_integer
from keras_attn.graph.flat import FlatGraph, run
from keras_attn.layers.class_prompts import ClassPrompts
from keras_attn.layers.patch_embedding import PatchEmbedding
from keras_attn.layers.transformer_block import TransformerBlock

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
        backbone: Model of `vit`, or any with one inside, such as a trained classifier,
            of images of known size. Its layers are shared, and frozen: the prompts and
            `w` alone learn.
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
        ValueError: If there is no model of `vit`, or it has fewer blocks.

    Example:

    >>> model = prompt_cam(vit("tiny", 16, (224, 96, 3)), 10)
    >>> {name: tensor.shape for name, tensor in model.output.items()}
    {'logits': (None, 10), 'prompt_attention': (None, 10, 3, 14, 6)}

    Reference: [chowdhury2025] arXiv:2501.09333, sections 2.2 and 2.3.
    """
    num_classes = positive_integer("num_classes", num_classes)
    one_of("variant", variant, VARIANTS)
    graph = FlatGraph(backbone)
    chosen, normalization, grid = _transformer(graph, backbone)
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
    ((_, start),) = chosen[-count].sources
    given = dict(zip(graph.inputs, inputs, strict=True))
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
    scored = normalization.operation(tokens[:, :num_classes])
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


def _of_prompts(attention, num_classes, rows, columns):
    """`(batch, classes, heads, rows, columns)` of `(batch, heads, tokens, tokens)`."""
    heads = attention.shape[1]
    attention = attention[:, :, :num_classes, -rows * columns :]
    attention = ops.cast(ops.transpose(attention, (0, 2, 1, 3)), "float32")
    return ops.reshape(attention, (-1, num_classes, heads, rows, columns))


def _transformer(graph, backbone):
    """The blocks of a graph, its last normalisation, and the grid of its patches."""
    patches, blocks, normalization = None, [], None
    for step in graph.steps:
        if isinstance(step.operation, PatchEmbedding):
            patches = graph.tensors[step.results[0]].shape[1:3]
        elif isinstance(step.operation, TransformerBlock):
            blocks.append(step)
        elif isinstance(step.operation, layers.LayerNormalization) and blocks:
            if step.sources[0][1] == blocks[-1].results[0]:
                normalization = step
    if patches is None or None in patches or normalization is None:
        raise ValueError(
            "Expected a model of keras_attn.models.vit, or one with such a model "
            "inside, of images of known size; other transformers, KerasHub's "
            f"included, are explained by `legrad`. Received: {backbone.name!r}"
        )
    return blocks, normalization, patches
