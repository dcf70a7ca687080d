"""Volumetric Transformer Networks in plain NumPy, one number after the other.

Written from the paper's equations; float64 throughout.
"""

import math

import numpy as np


def bilinear_sample(features, coordinates, padding="border"):
    """Values between cells; arguments as in `keras_attn.ops.warp`."""
    features = np.asarray(features, "float64")
    coordinates = np.asarray(coordinates, "float64")
    batch, rows, columns, groups, _ = coordinates.shape
    depth = features.shape[-1] // groups
    result = np.zeros((batch, rows, columns, features.shape[-1]))
    for image, row, column, group in np.ndindex(batch, rows, columns, groups):
        channels = slice(group * depth, (group + 1) * depth)
        result[image, row, column, channels] = _value_at(
            features[image, :, :, channels],
            *coordinates[image, row, column, group],
            padding,
        )
    return result


def _value_at(image, y, x, padding):
    height, width, depth = image.shape
    if padding == "border":
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    value = np.zeros(depth)
    for i in (math.floor(y), math.floor(y) + 1):
        for j in (math.floor(x), math.floor(x) + 1):
            if 0 <= i < height and 0 <= j < width:
                value += (1 - abs(y - i)) * (1 - abs(x - j)) * image[i, j]
    return value


def expected_displacement(responses, residuals, window, temperature):
    """Equations (1) and (2) for maps `(maps, height, width)`."""
    radius = window // 2
    maps, height, width = np.shape(responses)
    fields = np.zeros((maps, height, width, 2))
    for index, row, column in np.ndindex(maps, height, width):
        total, field = 0.0, np.zeros(2)
        peak = np.max(responses[index]) + np.max(residuals[index, row, column])
        for number in range(window**2):
            dy, dx = number // window - radius, number % window - radius
            if 0 <= row + dy < height and 0 <= column + dx < width:
                logit = responses[index][row + dy][column + dx]
                logit = logit + residuals[index, row, column, number]
                weight = math.exp((logit - peak) / temperature)
                total += weight
                field += weight * np.array([dy, dx])
        fields[index, row, column] = field / total
    return fields


def volumetric_transformer(features, weights, options):
    """Outputs of the layer for one image, in inference.

    Args:
        features: `U`, `(height, width, channels)`.
        weights: Dict of lists, one entry per level: `kernels`, `scales`, `offsets`,
            `means`, `variances` of convolutions and their normalisations, `mixings`
            (empty: none); and `head`, kernel and bias of the last layer.
        options: Dict of the layer's `groups`, `window`, `temperature` and
            `probabilistic`.

    Returns:
        `(V, G)`.
    """
    height, width, _ = features.shape
    responses, seen = _group_maps(features, options["groups"])
    estimate = estimator(seen, weights)
    if options["probabilistic"]:
        fields = expected_displacement(
            responses, estimate, options["window"], options["temperature"]
        )
    else:
        fields = np.array(estimate)
        for _, row, column, field in _cells(fields):
            field[0] = min(max(field[0], -row), height - 1 - row)
            field[1] = min(max(field[1], -column), width - 1 - column)
    fields = np.moveaxis(fields, 0, 2)
    grid = np.stack(np.mgrid[:height, :width], axis=-1)[:, :, None]
    return bilinear_sample(features[None], (grid + fields)[None])[0], fields


def _cells(fields):
    for group, row, column in np.ndindex(fields.shape[:3]):
        yield group, row, column, fields[group, row, column]


def _group_maps(features, groups):
    if groups is None:
        maps = np.moveaxis(features, -1, 0)
        return 2 * maps, [channel[..., None] for channel in maps]
    responses, seen = [], []
    for group in np.split(features, groups, axis=-1):
        pooled = np.stack([group.max(axis=-1), group.mean(axis=-1)], axis=-1)
        responses.append(pooled.sum(axis=-1))
        seen.append((pooled - pooled.mean()) / np.sqrt(pooled.var() + 1e-5))
    return np.array(responses), seen


def estimator(maps, weights):
    """`E` of every channel, `(channels, height, width, outputs)`."""
    levels = len(weights["kernels"])
    sizes = []
    for level in range(levels):
        maps = [_convolution_level(channel, weights, level) for channel in maps]
        if weights["mixings"]:
            kernel = weights["mixings"][level]
            maps = [
                sum(kernel[old, new] * maps[old] for old in range(kernel.shape[0]))
                for new in range(kernel.shape[1])
            ]
        if level < levels // 2:
            sizes.append(maps[0].shape[:2])
            maps = [_max_pool(channel) for channel in maps]
        else:
            size = sizes.pop()
            maps = [_resize(channel, size) for channel in maps]
    kernel, bias = weights["head"]
    return np.array([channel @ kernel + bias for channel in maps])


def _convolution_level(maps, weights, level):
    kernel = weights["kernels"][level]
    height, width, _ = maps.shape
    padded = np.pad(maps, ((1, 1), (1, 1), (0, 0)))
    result = np.zeros((height, width, kernel.shape[-1]))
    for i in range(3):
        for j in range(3):
            result += padded[i : i + height, j : j + width] @ kernel[i, j]
    deviation = np.sqrt(weights["variances"][level] + 1e-5)
    result = (result - weights["means"][level]) / deviation
    result = result * weights["scales"][level] + weights["offsets"][level]
    return np.maximum(result, 0)


def _max_pool(maps):
    height, width, features = maps.shape
    result = np.zeros((math.ceil(height / 2), math.ceil(width / 2), features))
    for i, j in np.ndindex(result.shape[:2]):
        block = maps[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        result[i, j] = block.max(axis=(0, 1))
    return result


def _resize(maps, size):
    """Bilinear: the outer edges of cells, not their centres, stay in the corners."""
    scale = np.divide(maps.shape[:2], size)
    places = np.stack(np.mgrid[: size[0], : size[1]], axis=-1)
    coordinates = (places + 0.5) * scale - 0.5
    return bilinear_sample(maps[None], coordinates[None, :, :, None])[0]
