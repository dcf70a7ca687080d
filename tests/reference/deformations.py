"""Deformations of maps, one image and one cell after the other, in float64."""

import math

import numpy as np


def read(image, y, x):
    """Bilinear interpolation of `(height, width, channels)`, zeros around it."""
    value = np.zeros(image.shape[-1])
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                weight = (1 - abs(y - row)) * (1 - abs(x - column))
                value = value + weight * image[row, column]
    return value


def read_at(image, places):
    """An image read at places `(height, width, 2)` in cells."""
    return np.array([[read(image, y, x) for y, x in row] for row in places])


def cells(height, width):
    return np.stack(np.mgrid[:height, :width], axis=-1).astype(float)


def affine_places(parameters, height, width):
    matrix = np.asarray(parameters, float).reshape(2, 3)
    places = np.zeros((height, width, 2))
    for i, y in enumerate(_centred(height)):
        for j, x in enumerate(_centred(width)):
            to_x, to_y = matrix @ [x, y, 1]
            places[i, j] = (to_y + 1) / 2 * (height - 1), (to_x + 1) / 2 * (width - 1)
    return places


def _centred(size):
    return np.linspace(-1, 1, size) if size > 1 else [0.0]


def saliency_places(saliency, fwhm, padding):
    """With the map really padded and the full two-dimensional Gaussian."""
    height, width = saliency.shape
    (above, left) = padding
    padded = np.pad(saliency, ((above, above), (left, left)), mode="edge")
    places = np.zeros((height, width, 2))
    for i in range(height):
        for j in range(width):
            total, to_y, to_x = 0.0, 0.0, 0.0
            for a in range(2 * above + 1):
                for b in range(2 * left + 1):
                    y, x = i + a - above, j + b - left
                    distance = ((y - i) / fwhm[0]) ** 2 + ((x - j) / fwhm[1]) ** 2
                    weight = padded[i + a, j + b] * 2.0 ** (-4 * distance)
                    total += weight
                    to_y += weight * y
                    to_x += weight * x
            places[i, j] = to_y / total, to_x / total
    return np.clip(places, 0, [height - 1, width - 1])


def attention_places(attention):
    """The published sampler at equal sizes of attention, input and output."""
    height, width = attention.shape
    rows, columns = attention.max(axis=1), attention.max(axis=0)
    rows, columns = height * rows / rows.sum(), width * columns / columns.sum()
    for turn in range(5):
        limit = min(rows.max(), columns.max())
        if turn == 0:
            limit = min(limit, 4.0)
        rows, columns = np.minimum(rows, limit), np.minimum(columns, limit)
        rows = rows + (height - rows.sum()) / height
        columns = columns + (width - columns.sum()) / width
    return np.stack(
        np.meshgrid(_inverse(rows), _inverse(columns), indexing="ij"), axis=-1
    )


def _inverse(density):
    size = len(density)
    if size == 1:
        return np.zeros(1)
    cumulative = [0.0]
    for value in density[1:]:
        cumulative.append(cumulative[-1] + value)
    places, j = [], 1
    for i in range(size):
        target = i * cumulative[-1] / size
        while cumulative[j] < target:
            j += 1
        share = (target - cumulative[j - 1]) / (cumulative[j] - cumulative[j - 1])
        # In -1..1 as published, then in cells.
        normalized = (j - 1 + share) * 2 / (size - 1) - 1
        places.append((normalized + 1) / 2 * (size - 1))
    return np.array(places)


def trilinear_attention(image, scale):
    """Maps `(height, width, channels)` of one image."""
    flat = image.reshape(-1, image.shape[-1]).T
    where = np.array([_softmax(scale * channel) for channel in flat])
    relations = np.array([_softmax(row) for row in where @ flat.T])
    return (relations @ flat).T.reshape(image.shape)


def _softmax(values):
    weights = np.exp(values - values.max())
    return weights / weights.sum()


def deformable_conv2d(image, offsets, kernel, strides, before, dilation):
    """Deformable convolution of `(height, width, channels)` without a bias.

    Args:
        offsets: `(rows, columns, taps, 2)`.
        before: Rows and columns of padding above and left of the image.
    """
    rows, columns = offsets.shape[:2]
    height, width = kernel.shape[:2]
    outputs = np.zeros((rows, columns, kernel.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            for a in range(height):
                for b in range(width):
                    dy, dx = offsets[i, j, a * width + b]
                    y = i * strides[0] - before[0] + a * dilation[0] + dy
                    x = j * strides[1] - before[1] + b * dilation[1] + dx
                    outputs[i, j] += read(image, y, x) @ kernel[a, b]
    return outputs
