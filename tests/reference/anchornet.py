"""AnchorNet's blocks in plain NumPy, one image and one cell at a time."""

import numpy as np


def hard_sigmoid(x):
    return np.clip(x + 3.0, 0.0, 6.0) / 6.0


def hard_swish(x):
    return x * hard_sigmoid(x)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def squeeze_excitation(image, squeeze, excite):
    """One image; `squeeze` and `excite` are pairs of kernel and bias."""
    mean = image.mean(axis=(0, 1))
    hidden = np.maximum(mean @ squeeze[0] + squeeze[1], 0.0)
    return image * hard_sigmoid(hidden @ excite[0] + excite[1])


def depthwise(image, kernel, stride):
    """VALID depthwise convolution of one image with a (k, k, channels) kernel."""
    size = kernel.shape[0]
    rows = (image.shape[0] - size) // stride + 1
    columns = (image.shape[1] - size) // stride + 1
    result = np.empty((rows, columns, image.shape[2]))
    for i in range(rows):
        for j in range(columns):
            window = image[
                i * stride : i * stride + size, j * stride : j * stride + size
            ]
            result[i, j] = np.sum(window * kernel, axis=(0, 1))
    return result


def normalized(x, weights, epsilon=1e-5):
    gamma, beta, mean, variance = weights
    return (x - mean) / np.sqrt(variance + epsilon) * gamma + beta


def bottleneck(image, weights, stride, shortcut):
    """One image through a bottleneck.

    `weights` has `expand` and its normalisation (or None), `depthwise`, `project`,
    their normalisations, and `squeeze`, `excite` (or None).
    """
    x = image
    if weights["expand"] is not None:
        x = normalized(x @ weights["expand"], weights["expand_normalization"])
        x = hard_swish(x)
    x = depthwise(x, weights["depthwise"], stride)
    x = hard_swish(normalized(x, weights["depthwise_normalization"]))
    if weights["squeeze"] is not None:
        x = squeeze_excitation(x, weights["squeeze"], weights["excite"])
    x = normalized(x @ weights["project"], weights["project_normalization"])
    if stride == 1 and x.shape[-1] == image.shape[-1]:
        first = 0 if shortcut == "top_left" else (image.shape[0] - x.shape[0]) // 2
        x = x + image[first : first + x.shape[0], first : first + x.shape[1]]
    return x


def spatial_attention(image, kernel, bias):
    """Equations (1) to (5) for one image (height, width, channels)."""
    height, width, channels = image.shape
    cell_weights = softmax((image @ kernel + bias).reshape(-1)).reshape(height, width)
    channel_scores = np.zeros(channels)
    for i in range(height):
        for j in range(width):
            channel_scores += image[i, j] * cell_weights[i, j]
    channel_attention = softmax(channel_scores)
    scores = np.array(
        [[image[i, j] @ channel_attention for j in range(width)] for i in range(height)]
    )
    return softmax(scores.reshape(-1)).reshape(height, width, 1)


def saccader_location(image, kernel, bias):
    """The location cell of Saccader without its scale and its mask of visits.

    A soft attention over cells, whose weighted mean of the features is turned into a
    softmax over channels and projected back on the cells. Written over a matrix of
    cells x channels, unlike the version above.
    """
    cells = image.reshape(-1, image.shape[-1])
    weights = softmax(cells @ kernel[:, 0] + bias)
    keys = softmax(weights @ cells)
    return softmax(cells @ keys).reshape(*image.shape[:2], 1)
