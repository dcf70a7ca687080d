"""The vision transformer of DINO in NumPy, on the names of the authors' tensors."""

import math

import numpy as np


def random_checkpoint(width=24, depth=2, patch=8, grid=(4, 4), classes=None, seed=0):
    """Tensors by the authors' names, none of them near zero or one."""
    random = np.random.default_rng(seed)

    def normal(*shape, scale=0.3):
        return (scale * random.normal(size=shape)).astype("float32")

    def norm(name):
        return {f"{name}.weight": 1 + normal(width), f"{name}.bias": normal(width)}

    def linear(name, outputs, inputs):
        weight = normal(outputs, inputs, scale=inputs**-0.5)
        return {f"{name}.weight": weight, f"{name}.bias": normal(outputs)}

    tensors = {
        "cls_token": normal(1, 1, width),
        "pos_embed": normal(1, 1 + grid[0] * grid[1], width),
        "patch_embed.proj.weight": normal(width, 3, patch, patch, scale=0.1),
        "patch_embed.proj.bias": normal(width),
    }
    for index in range(depth):
        name = f"blocks.{index}"
        tensors |= {
            **norm(f"{name}.norm1"),
            **linear(f"{name}.attn.qkv", 3 * width, width),
            **linear(f"{name}.attn.proj", width, width),
            **norm(f"{name}.norm2"),
            **linear(f"{name}.mlp.fc1", 4 * width, width),
            **linear(f"{name}.mlp.fc2", width, 4 * width),
        }
    tensors |= norm("norm")
    if classes is not None:
        tensors |= linear("head", classes, width)
    return tensors


def forward(tensors, images, heads):
    """One image and patch, token and head after the other, in float64.

    Images have the size that the positions are learned for.

    Returns:
        Tokens after the last norm `(images, tokens, width)`, and the attention of all
        blocks, a list of `(images, heads, tokens, tokens)`.
    """
    tensors = {name: value.astype("float64") for name, value in tensors.items()}
    depth = 1 + max(
        int(name.split(".")[1]) for name in tensors if name.startswith("blocks.")
    )
    results, attentions = [], [[] for _ in range(depth)]
    for image in images.astype("float64"):
        x = embed(tensors, image)
        for index in range(depth):
            x, attention = block(tensors, f"blocks.{index}", x, heads)
            attentions[index].append(attention)
        results.append(norm(tensors, "norm", x))
    return np.stack(results), [np.stack(one) for one in attentions]


def embed(tensors, image):
    kernel = tensors["patch_embed.proj.weight"]
    side = kernel.shape[-1]
    tokens = [tensors["cls_token"][0, 0]]
    for row in range(0, image.shape[0], side):
        for column in range(0, image.shape[1], side):
            patch = image[row : row + side, column : column + side]
            vector = np.tensordot(kernel, patch.transpose(2, 0, 1), 3)
            tokens.append(vector + tensors["patch_embed.proj.bias"])
    return np.stack(tokens) + tensors["pos_embed"][0]


def block(tensors, name, x, heads):
    width = x.shape[-1]
    depth = width // heads
    qkv = linear(tensors, f"{name}.attn.qkv", norm(tensors, f"{name}.norm1", x))
    attention, mixed = [], []
    for head in range(heads):
        q, k, v = (
            qkv[:, part * width + head * depth : part * width + (head + 1) * depth]
            for part in range(3)
        )
        scores = np.exp(q @ k.T / math.sqrt(depth))
        attention.append(scores / scores.sum(axis=1, keepdims=True))
        mixed.append(attention[-1] @ v)
    x = x + linear(tensors, f"{name}.attn.proj", np.concatenate(mixed, axis=1))
    hidden = linear(tensors, f"{name}.mlp.fc1", norm(tensors, f"{name}.norm2", x))
    error_function = np.vectorize(math.erf)(hidden / math.sqrt(2))
    hidden = 0.5 * hidden * (1 + error_function)
    return x + linear(tensors, f"{name}.mlp.fc2", hidden), np.stack(attention)


def norm(tensors, name, x):
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt(variance + 1e-6)
    return scaled * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]


def linear(tensors, name, x):
    return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]
