"""ROAD: predictions as pixels are removed without a trace of their shape."""

from collections.abc import Callable, Sequence

import numpy as np

from keras_attn.metrics.map_curves import check_maps, labels_or_best, padded_scores

# Weights of the neighbours of a pixel, by their distance in rows and columns.
NEIGHBOURS = {
    (dy, dx): 1 / 6 if dy == 0 or dx == 0 else 1 / 12
    for dy in (-1, 0, 1)
    for dx in (-1, 0, 1)
    if dy or dx
}
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
# Most iterations, and the residual relative to the first, of filling.
ITERATIONS, TOLERANCE = 500, 1e-5


def road_curve(
    predict: Callable,
    images,
    maps,
    labels=None,
    shares: Sequence[float] = SHARES,
    noise: float = 0.01,
    seed: int = 0,
    batch_size: int = 64,
):
    """Predictions that stay as pixels are removed, the most important first.

    Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution
    Methods": removed pixels are filled with the weighted means of their neighbours,
    which no network can tell from a missing part, and noise is added to them. A good
    map has a small mean.

    Args:
        predict: Function from images to scores `(batch, classes)`.
        images: `(N, height, width, channels)`.
        maps: `(N, height, width)`. Of equal values the upper left comes first.
        labels: `(N,)` integers; `None`: the class with the highest score.
        shares: Shares of the pixels to remove.
        noise: Standard deviation of the noise, as a share of each image's range.
        seed: Seed of the noise.
        batch_size: Images per call of `predict`.

    Returns:
        Dict of `shares`; `kept` `(N, shares)`, whether the prediction is the label; and
        `means` `(N,)` of these.

    Raises:
        ValueError: If arguments do not fit each other.

    Example:

    >>> def predict(images):
    ...     bright = images[:, 0, 0]
    ...     return np.concatenate([bright, 0.5 + 0 * bright], axis=1)
    >>> image = np.zeros((1, 3, 3, 1))
    >>> image[:, 0, 0] = 1
    >>> maps = np.arange(9)[::-1].reshape(1, 3, 3)
    >>> road_curve(predict, image, maps, shares=[0.2], noise=0)["kept"]
    array([[False]])

    Reference: [rong2022] arXiv:2202.00449.
    """
    images, maps = np.asarray(images), np.asarray(maps)
    check_maps(images, maps, 1)
    removed = np.asarray(shares, "float64")
    if (
        removed.ndim != 1
        or not removed.size
        or not np.all((0 < removed) & (removed < 1))
    ):
        raise ValueError(
            f"Expected `shares` between 0 and 1. Received: shares={removed.tolist()}"
        )
    labels = labels_or_best(predict, images, labels, batch_size)
    order = np.argsort(-maps.reshape(len(maps), -1), axis=1, kind="stable")
    ranks = np.argsort(order, axis=1).reshape(maps.shape)
    random = np.random.default_rng(seed)
    spread = noise * np.ptp(images.astype("float64"), axis=(1, 2, 3), keepdims=True)
    kept = np.empty((len(images), len(removed)), bool)
    for column, share in enumerate(removed):
        missing = ranks < int(share * maps[0].size)
        filled = imputed(images, missing)
        filled += missing[..., None] * spread * random.standard_normal(images.shape)
        if images.dtype.kind in "iu":
            limits = np.iinfo(images.dtype)
            filled = np.clip(np.rint(filled), limits.min, limits.max)
        filled = filled.astype(images.dtype)
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            scores = padded_scores(predict, filled[part], batch_size)
            kept[part, column] = scores.argmax(axis=1) == labels[part]
    return {"shares": removed, "kept": kept, "means": kept.mean(axis=1)}


def imputed(images, missing):
    """Images whose missing pixels are the weighted means of their neighbours, float64.

    Args:
        images: `(N, height, width, channels)`.
        missing: Booleans `(N, height, width)`.
    """
    known = images.astype("float64")
    unknown = missing[..., None].astype("float64")
    outside = 1 - unknown
    count = np.maximum(outside.sum(axis=(1, 2), keepdims=True), 1)
    mean = (known * outside).sum(axis=(1, 2), keepdims=True) / count
    weights = _neighbours(np.ones((1, *images.shape[1:3], 1)))
    # Conjugate gradients: the matrix is symmetric, and positive where any is known.
    x = known * outside + mean * unknown
    residual = unknown * (_neighbours(x) - weights * x)
    direction, square = residual, _square(residual)
    limit = TOLERANCE**2 * np.maximum(square, 1e-30)
    for _ in range(ITERATIONS):
        if np.all(square <= limit):
            break
        product = unknown * (weights * direction - _neighbours(direction))
        below = (direction * product).sum(axis=(1, 2), keepdims=True)
        step = np.divide(square, below, out=np.zeros_like(square), where=below > 0)
        x = x + step * direction
        residual = residual - step * product
        last, square = square, _square(residual)
        ratio = np.divide(square, last, out=np.zeros_like(last), where=last > 0)
        direction = residual + ratio * direction
    return x


def _neighbours(x):
    """Weighted sum of the neighbours inside the image."""
    height, width = x.shape[1:3]
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    return sum(
        weight * padded[:, 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
        for (dy, dx), weight in NEIGHBOURS.items()
    )


def _square(x):
    return (x**2).sum(axis=(1, 2), keepdims=True)
