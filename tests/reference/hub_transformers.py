"""KerasHub's vision transformers in NumPy, by the names of their weights."""

import math

import numpy as np


def attentions(weights, images, heads, epsilon, rotary=None):
    """Attention of all blocks, a list of `(images, heads, tokens, tokens)`."""
    return forward(weights, images, heads, epsilon, rotary)[0]


def forward(weights, images, heads, epsilon, rotary=None, prompts=()):
    """Attention of all blocks, and the tokens behind the last normalisation.

    Args:
        weights: Dict from the path of a weight to its array.
        rotary: Base of the rotary positions' frequencies, of DINOv3.
        prompts: Dict from the index of a block to tokens `(prompts, width)` in front of
            it, which replace those from before.
    """
    weights = {name: value.astype("float64") for name, value in weights.items()}
    x, grid = tokens_of(weights, images)
    patches, found, added = grid[0] * grid[1], [], 0
    blocks = dict.fromkeys(block for block in map(block_of, weights) if block)
    for index, name in enumerate(blocks):
        if index in prompts:
            new = np.broadcast_to(prompts[index], (len(x), *prompts[index].shape))
            x, added = np.concatenate([new, x[:, added:]], axis=1), new.shape[1]
        prefix = x.shape[1] - patches
        own = {
            path.removeprefix(name + "/"): value
            for path, value in weights.items()
            if path.startswith(name + "/")
        }
        normalized = norm(x, named(own, "ln_1", "norm1"), epsilon)
        q, k, v = (
            split_heads(linear(normalized, named(own, f"/{part}/", f"{part[0]}_proj")))
            if rotary is None
            else linear(normalized, named(own, f"{part[0]}_proj"))
            .reshape(*x.shape[:2], heads, -1)
            .transpose(0, 2, 1, 3)
            for part in ("query", "key", "value")
        )
        if rotary is not None:
            q, k = (rotated(each, grid, prefix, rotary) for each in (q, k))
        scores = np.exp(q @ k.swapaxes(2, 3) / math.sqrt(q.shape[-1]))
        found.append(scores / scores.sum(axis=-1, keepdims=True))
        mixed = (found[-1] @ v).transpose(0, 2, 1, 3).reshape(x.shape)
        kernel, bias = named(own, "attention_output", "o_proj")
        branch = mixed @ kernel.reshape(x.shape[-1], -1) + bias
        x = x + branch * scale(own, "layer_scale1")
        hidden = linear(
            norm(x, named(own, "ln_2", "norm2"), epsilon),
            named(own, "mlp/dense_1", "mlp/dense/", "fc1", "up_proj"),
        )
        hidden *= 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
        second = named(own, "mlp/dense_2", "output_layer", "fc2", "down_proj")
        x = x + linear(hidden, second) * scale(own, "layer_scale2")
    return found, norm(x, list(weights.values())[-2:], epsilon)


def block_of(path):
    """`"encoder/layers_0"` of a path, or `None`."""
    parts = path.split("/")
    if parts[1].startswith(("layers_", "transformer_block_")):
        return "/".join(parts[:2])
    return None


def tokens_of(weights, images):
    """Class token, registers and patches, with positions; and the grid."""
    kernel, bias = named(
        {name: each for name, each in weights.items() if "patch_embedding" in name},
        "patch_embedding/",
        "projection/",
    )
    side, width = kernel.shape[0], kernel.shape[-1]
    rows, columns = images.shape[1] // side, images.shape[2] // side
    patches = [
        np.tensordot(
            images[:, r * side : (r + 1) * side, c * side : (c + 1) * side], kernel, 3
        )
        + bias
        for r in range(rows)
        for c in range(columns)
    ]

    def extra(*parts):
        found = [
            each
            for part in parts
            for name, each in weights.items()
            if name.rsplit("/", 1)[1] == part
        ]
        return [
            np.broadcast_to(each, (len(images), each.shape[1], width)) for each in found
        ]

    class_tokens = extra("class_token", "cls_token", "distillation_token")
    x = np.concatenate([*class_tokens, np.stack(patches, axis=1)], axis=1)
    for name, each in weights.items():
        if name.endswith(
            (
                "interpolated_position_embeddings",
                "position_embedding",
                "position_embedding/embeddings",
            )
        ):
            x = x + each.reshape(1, *x.shape[1:])
    registers = extra("register_tokens")
    return np.concatenate([x[:, :1], *registers, x[:, 1:]], axis=1), (rows, columns)


def rotated(x, grid, prefix, base):
    """Queries or keys `(images, heads, tokens, depth)`, turned by their positions."""
    depth, result = x.shape[-1], x.copy()
    quarter = depth // 4
    for cell in range(grid[0] * grid[1]):
        for axis, place in enumerate(divmod(cell, grid[1])):
            position = 2 * (place + 0.5) / grid[axis] - 1
            for i in range(quarter):
                angle = 2 * math.pi * position / base ** (i / quarter)
                first = axis * quarter + i
                second = first + depth // 2
                a, b = x[:, :, prefix + cell, first], x[:, :, prefix + cell, second]
                result[:, :, prefix + cell, first] = a * math.cos(angle) - b * math.sin(
                    angle
                )
                result[:, :, prefix + cell, second] = b * math.cos(
                    angle
                ) + a * math.sin(angle)
    return result


def named(weights, *parts):
    """The two weights of the layer whose path has one of some parts."""
    for part in parts:
        found = [each for name, each in weights.items() if part in f"/{name}"]
        if found:
            return found
    raise KeyError(parts)


def scale(weights, part):
    return named(weights, part)[0] if any(part in name for name in weights) else 1.0


def linear(x, weights):
    kernel, bias = weights
    return np.tensordot(x, kernel, 1) + bias


def split_heads(x):
    return x.transpose(0, 2, 1, 3)


def norm(x, weights, epsilon):
    gamma, beta = weights
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    return gamma * centred / np.sqrt(variance + epsilon) + beta
