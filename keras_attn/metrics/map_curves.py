"""Deletion and insertion curves: a score as the pixels of a map come or go."""

from collections.abc import Callable, Sequence

import numpy as np
from keras import ops

# The blurred image of the insertion game has no detail left: the standard deviation
# is this share of the longer side, 22 at 224 pixels, and at least one pixel.
BLUR = 0.1


def deletion_curve(
    predict: Callable,
    images,
    maps,
    labels=None,
    steps: int = 32,
    baseline: str | float | Sequence[float] = "mean",
    batch_size: int = 64,
):
    """Scores as pixels are removed, the most important first.

    Petsiuk et al., "RISE: Randomized Input Sampling for Explanation of Black-box
    Models", section 4.2. A good map has a small area under the curve.

    Args:
        predict: Function from images to scores `(batch, classes)`, usually
            probabilities.
        images: `(N, height, width, channels)`.
        maps: `(N, height, width)`. Of equal values the upper left comes first.
        labels: `(N,)` integers; `None`: the class with the highest score.
        steps: Number of steps, each of as many pixels.
        baseline: Replacement of the removed pixels: `"mean"`, the mean colour of
            the image; `"blur"`; a number, or one for each channel.
        batch_size: Images per call of `predict`.

    Returns:
        Dict of `shares` `(steps + 1,)`, the share of pixels that are removed, from 0
        to 1; `scores` `(N, steps + 1)`; and `areas` `(N,)` under the curves, by the
        trapezoid rule.

    Raises:
        ValueError: If arguments do not fit each other.

    Example: a score that is the value of one pixel, and a map of it

    >>> def predict(images):
    ...     return images[:, 0, 0]
    >>> image = np.ones((1, 2, 2, 1))
    >>> maps = np.array([[[4, 3], [2, 1]]])
    >>> deletion_curve(predict, image, maps, steps=4, baseline=0)["scores"]
    array([[1., 0., 0., 0., 0.]])

    Reference: [petsiuk2018] arXiv:1806.07421, section 4.2.
    """
    return _curve(predict, images, maps, labels, steps, baseline, batch_size, True)


def insertion_curve(
    predict: Callable,
    images,
    maps,
    labels=None,
    steps: int = 32,
    baseline: str | float | Sequence[float] = "blur",
    batch_size: int = 64,
):
    """Scores as pixels appear, the most important first.

    Petsiuk et al., section 4.2. A good map has a large area under the curve.

    Args:
        predict: Function from images to scores `(batch, classes)`, usually
            probabilities.
        images: `(N, height, width, channels)`.
        maps: `(N, height, width)`. Of equal values the upper left comes first.
        labels: `(N,)` integers; `None`: the class with the highest score.
        steps: Number of steps, each of as many pixels.
        baseline: The image at the start: `"blur"`, in which no sharp edges appear that
            the network might take for evidence; `"mean"`, the mean colour of the image;
            a number, or one for each channel.
        batch_size: Images per call of `predict`.

    Returns:
        Dict of `shares` `(steps + 1,)`, the share of pixels that have appeared, from 0
        to 1; `scores` `(N, steps + 1)`; and `areas` `(N,)` under the curves, by the
        trapezoid rule.

    Raises:
        ValueError: If arguments do not fit each other.

    Example:

    >>> def predict(images):
    ...     return images[:, 0, 0]
    >>> image = np.ones((1, 2, 2, 1))
    >>> maps = np.array([[[4, 3], [2, 1]]])
    >>> curve = insertion_curve(predict, image, maps, steps=4, baseline=0)
    >>> curve["scores"], curve["areas"]
    (array([[0., 1., 1., 1., 1.]]), array([0.875]))

    Reference: [petsiuk2018] arXiv:1806.07421, section 4.2.
    """
    return _curve(predict, images, maps, labels, steps, baseline, batch_size, False)


def _curve(predict, images, maps, labels, steps, baseline, batch_size, is_deletion):
    images, maps = np.asarray(images), np.asarray(maps)
    check_maps(images, maps, steps)
    count, height, width = maps.shape
    pixels = height * width
    other = _baseline(images, baseline)
    before, after = (images, other) if is_deletion else (other, images)
    # The rank of a pixel is the number of more important ones.
    order = np.argsort(-maps.reshape(count, -1), axis=1, kind="stable")
    ranks = np.argsort(order, axis=1).reshape(maps.shape)
    shares = np.arange(steps + 1) / steps
    limits = np.rint(shares * pixels)
    labels = labels_or_best(predict, images, labels, batch_size)
    scores = np.empty(count * (steps + 1))
    for start in range(0, len(scores), batch_size):
        places = np.arange(start, min(start + batch_size, len(scores)))
        rows, step = places // (steps + 1), places % (steps + 1)
        changed = ranks[rows] < limits[step, None, None]
        batch = np.where(changed[..., None], after[rows], before[rows])
        found = padded_scores(predict, batch, batch_size)
        if not 0 <= labels.min() <= labels.max() < found.shape[1]:
            raise ValueError(
                f"Expected `labels` in 0..{found.shape[1] - 1}. "
                f"Received: labels from {labels.min()} to {labels.max()}"
            )
        scores[places] = found[np.arange(len(rows)), labels[rows]]
    scores = scores.reshape(count, steps + 1)
    areas = (scores[:, 1:] + scores[:, :-1]).mean(axis=1) / 2
    return {"shares": shares, "scores": scores, "areas": areas}


def check_maps(images, maps, steps):
    """Checks images `(N, height, width, channels)`, their maps, and the steps."""
    if images.ndim != 4 or maps.shape != images.shape[:3] or not len(images):
        raise ValueError(
            "Expected images (N, height, width, channels) and maps (N, height, width). "
            f"Received: shapes {images.shape} and {maps.shape}"
        )
    if not np.isfinite(maps).all():
        raise ValueError("Expected finite maps. Received: NaN or infinite values")
    if not 1 <= steps <= maps[0].size:
        raise ValueError(
            f"Expected `steps` in 1..{maps[0].size}. Received: steps={steps}"
        )


def labels_or_best(predict, images, labels, batch_size):
    """Labels `(N,)`, those given or the classes with the highest scores."""
    if labels is not None:
        labels = np.asarray(labels)
        if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
            raise ValueError(
                f"Expected `labels` to be integers of shape ({len(images)},). "
                f"Received: {labels.dtype} of shape {labels.shape}"
            )
        return labels
    starts = range(0, len(images), batch_size)
    parts = [images[start : start + batch_size] for start in starts]
    return np.concatenate(
        [padded_scores(predict, part, batch_size).argmax(axis=1) for part in parts]
    )


def padded_scores(predict, images, batch_size):
    """Scores of images, which are padded to the batch size: it may be compiled."""
    missing = batch_size - len(images)
    padded = np.pad(images, [(0, missing), *[(0, 0)] * 3], mode="edge")
    found = predict(padded)
    found = ops.convert_to_numpy(found) if ops.is_tensor(found) else np.asarray(found)
    if found.ndim != 2 or len(found) != len(padded):
        raise ValueError(
            f"Expected scores ({len(padded)}, classes). Received: shape {found.shape}"
        )
    return found[: len(images)].astype("float64")


def _baseline(images, baseline):
    if isinstance(baseline, str):
        if baseline not in ("mean", "blur"):
            raise ValueError(
                "Expected `baseline` to be 'mean', 'blur', or a colour. "
                f"Received: baseline={baseline!r}"
            )
        if baseline == "blur":
            return _as(images, blurred(images, max(1.0, BLUR * max(images.shape[1:3]))))
        baseline = images.mean(axis=(1, 2), keepdims=True)
    return _as(images, np.broadcast_to(baseline, images.shape))


def _as(images, other):
    whole = images.dtype.kind in "iu"
    return (np.rint(other) if whole else other).astype(images.dtype)


def blurred(images, deviation):
    """Images under a Gaussian with this standard deviation; the border is extended."""
    radius = max(1, round(3 * deviation))
    places = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (places / deviation) ** 2)
    weights /= weights.sum()
    result = np.asarray(images, "float64")
    for axis in (1, 2):
        padding = [(0, 0)] * result.ndim
        padding[axis] = (radius, radius)
        padded = np.pad(result, padding, mode="edge")
        size = result.shape[axis]
        result = sum(
            weight * np.take(padded, range(start, start + size), axis=axis)
            for start, weight in enumerate(weights)
        )
    return result
