"""Slopes at the attention of a `vit` in NumPy, by central differences."""

import math

import numpy as np


class Transformer:
    """A tiny `vit`, one image after another, in float64.

    Args:
        model: Model of `vit` with the output `logits`.
    """

    def __init__(self, model):
        self.heads = model.get_layer("block_1").num_heads
        self.depth = sum(layer.name.startswith("block_") for layer in model.layers)
        self.weights = {
            layer.name: [each.astype("float64") for each in layer.get_weights()]
            for layer in model.layers
        }

    def embed(self, image):
        kernel, bias = self.weights["patches"]
        side = kernel.shape[0]
        patches = [
            np.tensordot(image[y : y + side, x : x + side], kernel, 3) + bias
            for y in range(0, image.shape[0], side)
            for x in range(0, image.shape[1], side)
        ]
        first, positions = sorted(self.weights["positions"], key=np.size)
        tokens = np.concatenate([first.reshape(1, -1), patches])
        return tokens + positions.reshape(tokens.shape)

    def block(self, index, x, moved=0.0):
        """Tokens behind a block whose attention is moved, and its attention."""
        own = self.weights[f"block_{index + 1}"]
        gamma, beta, qkv, qkv_bias, out, out_bias = own[:6]
        parts = norm(x, gamma, beta) @ qkv + qkv_bias
        q, k, v = (
            part.reshape(len(x), self.heads, -1).transpose(1, 0, 2)
            for part in np.split(parts, 3, axis=1)
        )
        scores = np.exp(q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1]))
        attention = scores / scores.sum(axis=-1, keepdims=True)
        mixed = ((attention + moved) @ v).transpose(1, 0, 2).reshape(x.shape)
        x = x + mixed @ out + out_bias
        gamma, beta, expand, expand_bias, reduce, reduce_bias = own[6:]
        hidden = norm(x, gamma, beta) @ expand + expand_bias
        hidden *= 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
        return x + hidden @ reduce + reduce_bias, attention

    def logits(self, x):
        kernel, bias = self.weights["logits"]
        return norm(x, *self.weights["normalization"])[0] @ kernel + bias

    def attention_and_slopes(self, image, label, alone):
        """Of every block, `(heads, tokens, tokens)` each.

        Args:
            alone: Whether later blocks are left out, as in LeGrad.
        """
        x, found = self.embed(image), []
        for index in range(self.depth):
            attention = self.block(index, x)[1]
            slopes = np.zeros_like(attention)
            for place in np.ndindex(*attention.shape):
                step = np.zeros_like(attention)
                step[place] = 1e-4
                up, down = (
                    self._score(index, x, moved, label, alone)
                    for moved in (step, -step)
                )
                slopes[place] = (up - down) / 2e-4
            found.append((attention, slopes))
            x = self.block(index, x)[0]
        return found

    def _score(self, index, x, moved, label, alone):
        x = self.block(index, x, moved)[0]
        for later in () if alone else range(index + 1, self.depth):
            x = self.block(later, x)[0]
        return self.logits(x)[label]


def norm(x, gamma, beta):
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    return gamma * centred / np.sqrt(variance + 1e-6) + beta
