"""Agreement of a map with what its pixels do, and with maps of nearly equal images."""

from collections.abc import Callable

import numpy as np

from keras_attn._checks import positive_integer, positive_number
from keras_attn.metrics.map_curves import check_maps, labels_or_best, padded_scores


def faithfulness_correlation(
    predict: Callable,
    images,
    maps,
    labels=None,
    subsets: int = 64,
    size: int | None = None,
    baseline: float | None = None,
    seed: int = 0,
    batch_size: int = 64,
) -> np.ndarray:
    """Correlation of the map's sum over random pixels with the fall of the score.

    Bhatt et al., "Evaluating and Aggregating Feature-based Model Explanations",
    section 3.

    Args:
        predict: Function from images to scores `(batch, classes)`.
        images: `(N, height, width, channels)`.
        maps: `(N, height, width)`.
        labels: `(N,)` integers; `None`: the class with the highest score.
        subsets: Number of random subsets of pixels.
        size: Pixels of a subset; `None`: a fifth of the image.
        baseline: Value of the subset's pixels; `None`: each image's mean colour.
        seed: Seed of the subsets.
        batch_size: Images per call of `predict`.

    Returns:
        `(N,)` in -1..1; 0 where the sums or the scores are constant.

    Raises:
        ValueError: If arguments do not fit each other.

    Example:

    >>> def predict(images):
    ...     return images.sum(axis=(1, 2))
    >>> image = np.arange(12.0).reshape(1, 3, 4, 1)
    >>> faithfulness_correlation(predict, image, image[..., 0], baseline=0).round(3)
    array([1.])

    Reference: [bhatt2020] arXiv:2005.00631.
    """
    images, maps = np.asarray(images), np.asarray(maps, "float64")
    check_maps(images, maps, 1)
    count, pixels = len(images), maps[0].size
    size = max(1, pixels // 5) if size is None else positive_integer("size", size)
    subsets = positive_integer("subsets", subsets)
    if size > pixels:
        raise ValueError(f"Expected `size` in 1..{pixels}. Received: size={size}")
    labels = labels_or_best(predict, images, labels, batch_size)
    other = images.mean(axis=(1, 2), keepdims=True) if baseline is None else baseline
    other = np.broadcast_to(other, images.shape).astype(images.dtype)
    random = np.random.default_rng(seed)
    # The score of the whole image only moves all falls by the same.
    sums, scores = np.empty((2, subsets * count))
    for start in range(0, len(sums), batch_size):
        places = np.arange(start, min(start + batch_size, len(sums)))
        rows = places % count
        chosen = np.zeros((len(rows), pixels), bool)
        for image in chosen:
            image[random.choice(pixels, size, replace=False)] = True
        chosen = chosen.reshape(-1, *maps.shape[1:])
        sums[places] = (maps[rows] * chosen).sum(axis=(1, 2))
        changed = np.where(chosen[..., None], other[rows], images[rows])
        found = padded_scores(predict, changed, batch_size)
        scores[places] = found[np.arange(len(rows)), labels[rows]]
    sums, falls = (
        each - each.mean(axis=0)
        for each in (sums.reshape(subsets, count), -scores.reshape(subsets, count))
    )
    lengths = np.sqrt((sums**2).sum(axis=0) * (falls**2).sum(axis=0))
    product = (sums * falls).sum(axis=0)
    return np.divide(product, lengths, out=np.zeros(count), where=lengths > 0)


def max_sensitivity(
    explain: Callable,
    images,
    samples: int = 8,
    radius: float = 0.02,
    seed: int = 0,
) -> np.ndarray:
    """Largest change of a map under small changes of its image.

    Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", eq. (3), by
    sampling, relative to the map:

    - `max over x' of |map(x') - map(x)| / |map(x)|`, with `|x' - x| <= r` everywhere.

    Args:
        explain: Function from images to maps `(N, height, width)`, always of the same
            classes.
        images: `(N, height, width, channels)`.
        samples: Number of changed copies of each image.
        radius: The bound `r`, as a share of each image's range.
        seed: Seed of the changes.

    Returns:
        `(N,)`, 0 for a map that does not change; NaN for one that is zero.

    Example:

    >>> images = np.random.default_rng(0).uniform(size=(2, 3, 4, 1))
    >>> max_sensitivity(lambda images: np.ones((2, 3, 4)), images)
    array([0., 0.])

    Reference: [yeh2019] arXiv:1901.09392.
    """
    samples = positive_integer("samples", samples)
    positive_number("radius", radius)
    images = np.asarray(images)
    wanted = np.asarray(explain(images), "float64")
    spread = radius * np.ptp(images.astype("float64"), axis=(1, 2, 3), keepdims=True)
    random, largest = np.random.default_rng(seed), np.zeros(len(images))
    lengths = np.sqrt((wanted**2).sum(axis=(1, 2)))
    for _ in range(samples):
        moved = images + spread * random.uniform(-1, 1, images.shape)
        if images.dtype.kind in "iu":
            limits = np.iinfo(images.dtype)
            moved = np.clip(np.rint(moved), limits.min, limits.max)
        change = np.asarray(explain(moved.astype(images.dtype)), "float64") - wanted
        largest = np.maximum(largest, np.sqrt((change**2).sum(axis=(1, 2))))
    nothing = np.full(len(images), np.nan)
    return np.divide(largest, lengths, out=nothing, where=lengths > 0)
