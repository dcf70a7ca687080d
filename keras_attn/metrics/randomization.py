"""Sanity check of explanations: dependence on what the model has learned."""

from collections.abc import Callable

import keras
import numpy as np

# Side of the windows in which maps are compared, that of Wang et al.'s first version.
WINDOW = 7


def randomization_check(
    model: keras.Model, explain: Callable, stages: int | None = None, seed: int = 0
):
    """Compares maps of a model with those after its weights are made random.

    Adebayo et al., "Sanity Checks for Saliency Maps", section 3: weights are
    randomised from the last layer down to the first, each stage on top of the ones
    before. A map that does not change depends on the image, not on the model.

    A weight is randomised by shuffling its numbers, which keeps their scale whatever
    the layer; so constant ones, such as biases of zero, stay as they are. The model
    has its own weights again afterwards, also after an error.

    Args:
        model: Built Keras model, of any kind.
        explain: Function from the model to maps `(N, height, width)`, always of the
            same images and classes.
        stages: Largest number of steps in which all layers with weights are randomised;
            `None`: one layer at a time. Each step explains once.
        seed: Seed of the shuffling.

    Returns:
        List of dicts, one per stage: `layer`, the name of the last one randomised;
        `share` of the layers that are random by then; and, as means over the images,
        `rank_correlation` with the maps of the model itself, in -1..1, and
        `similarity` (SSIM of maps scaled to 0..1), at most 1. For a good explanation
        both fall.

    Raises:
        ValueError: If the model has no weights, or `stages` is not positive.

    Example:

    >>> model = keras.Sequential([keras.Input((4, 6, 1)), keras.layers.Conv2D(1, 3)])
    >>> check = randomization_check(model, lambda model: np.eye(8)[None])
    >>> check[0]["rank_correlation"], check[0]["share"]
    (1.0, 1.0)

    Reference: [adebayo2018] arXiv:1810.03292, section 3.
    """
    layers = [layer for layer in _leaves(model) if layer.weights][::-1]
    stages = len(layers) if stages is None else min(stages, len(layers))
    if stages < 1:
        raise ValueError(
            "Expected a model with weights, and `stages` of at least 1. "
            f"Received: {len(layers)} layers with weights, stages={stages}"
        )
    random = np.random.default_rng(seed)
    wanted = _maps(explain(model))
    kept = [layer.get_weights() for layer in layers]
    ends = np.rint(np.linspace(0, len(layers), stages + 1)).astype(int)
    results = []
    try:
        for start, end in zip(ends[:-1], ends[1:], strict=True):
            for layer, weights in zip(layers[start:end], kept[start:end], strict=True):
                layer.set_weights([_shuffled(random, weight) for weight in weights])
            maps = _maps(explain(model))
            results.append(
                {
                    "layer": layers[end - 1].name,
                    "share": float(end / len(layers)),
                    "rank_correlation": float(rank_correlation(wanted, maps).mean()),
                    "similarity": float(structural_similarity(wanted, maps).mean()),
                }
            )
    finally:
        for layer, weights in zip(layers, kept, strict=True):
            layer.set_weights(weights)
    return results


def rank_correlation(first, second):
    """Spearman's correlation of maps `(N, height, width)`: `(N,)` in -1..1.

    Equal values share their mean rank; with a constant map it is 0.
    """
    first, second = (
        np.stack([_ranks(each.ravel()) for each in maps]) for maps in (first, second)
    )
    first = first - first.mean(axis=1, keepdims=True)
    second = second - second.mean(axis=1, keepdims=True)
    lengths = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    product = (first * second).sum(axis=1)
    return np.divide(product, lengths, out=np.zeros(len(first)), where=lengths > 0)


def structural_similarity(first, second):
    """SSIM of maps `(N, height, width)` that are scaled to 0..1 first: `(N,)`.

    Wang et al., "Image Quality Assessment: From Error Visibility to Structural
    Similarity", with the constants 0.01 and 0.03 in windows of 7 x 7, or of the whole
    map where that is smaller.
    """
    first, second = _scaled(first), _scaled(second)
    window = min(WINDOW, *first.shape[1:])
    means = [_window_means(each, window) for each in (first, second)]
    # Of samples, so that windows of different sizes agree.
    unbiased = window**2 / max(window**2 - 1, 1)
    variances = [
        unbiased * (_window_means(each**2, window) - mean**2)
        for each, mean in zip((first, second), means, strict=True)
    ]
    product = _window_means(first * second, window)
    covariance = unbiased * (product - means[0] * means[1])
    above = (2 * means[0] * means[1] + 1e-4) * (2 * covariance + 9e-4)
    below = (means[0] ** 2 + means[1] ** 2 + 1e-4) * (sum(variances) + 9e-4)
    return (above / below).mean(axis=(1, 2))


def _leaves(model):
    """Layers in the order of the model, those of models inside it in their place."""
    found = []
    for layer in model.layers:
        inside = _leaves(layer) if isinstance(layer, keras.Model) else [layer]
        found += [each for each in inside if each not in found]
    return found


def _shuffled(random, weight):
    return random.permutation(np.ravel(weight)).reshape(np.shape(weight))


def _maps(maps):
    maps = np.asarray(keras.ops.convert_to_numpy(maps), "float64")
    if maps.ndim != 3:
        raise ValueError(
            f"Expected maps (N, height, width). Received: shape {maps.shape}"
        )
    return np.nan_to_num(maps)


def _ranks(values):
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[places]


def _scaled(maps):
    low, high = (f(maps, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    return (maps - low) / np.where(high > low, high - low, 1)


def _window_means(maps, window):
    windows = np.lib.stride_tricks.sliding_window_view(maps, (window, window), (1, 2))
    return windows.mean(axis=(3, 4))
