"""Blocks that keep the shape of a map, in plain NumPy, one image and cell at a time.

Weights come in the order of the layers' own `weights`.
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def relu(x):
    return np.maximum(x, 0)


def hard_swish(x):
    return x * np.clip(x + 3, 0, 6) / 6


def eca(image, kernel):
    mean = image.mean(axis=(0, 1))
    size = len(kernel)
    padded = np.pad(mean, size // 2)
    gates = [
        sigmoid(sum(padded[c + k] * kernel[k, 0, 0] for k in range(size)))
        for c in range(len(mean))
    ]
    return image * np.array(gates)


def cbam(image, squeeze, excite, kernel, bias):
    def hidden(pooled):
        return relu(pooled @ squeeze) @ excite

    image = image * sigmoid(hidden(image.mean((0, 1))) + hidden(image.max((0, 1))))
    rows, columns, _ = image.shape
    size = len(kernel)
    before, after = (size - 1) // 2, size // 2
    pooled = np.stack([image.mean(-1), image.max(-1)], axis=-1)
    padded = np.pad(pooled, [(before, after), (before, after), (0, 0)])
    result = np.empty_like(image)
    for i in range(rows):
        for j in range(columns):
            window = padded[i : i + size, j : j + size]
            gate = sigmoid(np.sum(window * kernel[..., 0]) + bias[0])
            result[i, j] = image[i, j] * gate
    return result


def global_context(image, attend, offset, w1, b1, gamma, beta, w2, b2):
    cells = image.reshape(-1, image.shape[-1])
    scores = np.exp([cell @ attend[:, 0] + offset[0] for cell in cells])
    context = sum(score * cell for score, cell in zip(scores, cells, strict=True))
    hidden = context / scores.sum() @ w1 + b1
    hidden = (hidden - hidden.mean()) / np.sqrt(hidden.var() + 1e-5) * gamma + beta
    return image + relu(hidden) @ w2 + b2


def coordinate_attention(image, w1, b1, gamma, beta, mean, variance, wh, bh, ww, bw):
    def hidden(pooled):
        normalized = (pooled @ w1 + b1 - mean) / np.sqrt(variance + 1e-5)
        return hard_swish(normalized * gamma + beta)

    result = np.empty_like(image)
    for i in range(image.shape[0]):
        for j in range(image.shape[1]):
            row = sigmoid(hidden(image[i].mean(axis=0)) @ wh + bh)
            column = sigmoid(hidden(image[:, j].mean(axis=0)) @ ww + bw)
            result[i, j] = image[i, j] * row * column
    return result


def simam(image, epsilon):
    result = np.empty_like(image)
    for c in range(image.shape[-1]):
        x = image[..., c]
        variance = x.var(ddof=1)
        for i, j in np.ndindex(x.shape):
            energy = 4 * (variance + epsilon)
            energy /= (x[i, j] - x.mean()) ** 2 + 2 * variance + 2 * epsilon
            result[i, j, c] = x[i, j] * sigmoid(1 / energy)
    return result
