"""Average precision and other measures of retrieval.

Radenovic et al., "Revisiting Oxford and Paris: Large-Scale Image Retrieval
Benchmarking". For every query the images of a database are *positive*, *junk* (left
out of the ranking) or, all others, negative.

Convention: ranks count from 0, over the ranking without its junk.

Reference: [radenovic2018] arXiv:1803.11285.
"""

from collections.abc import Mapping, Sequence

import numpy as np

CUTOFFS = (1, 5, 10)
# Setup: (kinds that are positive, kinds that are junk).
SETUPS = {
    "easy": (("easy",), ("junk", "hard")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("junk", "easy")),
}
# Number of similarities of labelled images held in memory.
BLOCK = 1 << 24


def average_precision(ranks, positives: int | None = None) -> float:
    """Area under precision over recall, by the trapezoid rule.

    Each positive adds a trapezoid of width `1 / positives` between the precisions just
    before and at it; before rank 0 the precision is 1.

    Args:
        ranks: Ranks of the positives that the ranking has.
        positives: Their number, if the ranking lacks some.

    Returns:
        Float in 0..1; NaN without positives.

    Example: positives first and third, `((1 + 1) + (1 / 2 + 2 / 3)) / 4`

    >>> average_precision([0, 2])
    0.7916666666666666
    """
    ranks = np.sort(np.asarray(ranks, "float64"))
    positives = len(ranks) if positives is None else positives
    if positives == 0:
        return float("nan")
    found = np.arange(len(ranks))
    before = np.where(ranks == 0, 1.0, found / np.maximum(ranks, 1))
    at = (found + 1) / (ranks + 1)
    return float(np.sum(before + at) / (2 * positives))


def precision_at(ranks, cutoff: int) -> float:
    """Share of positives among the first images of a ranking.

    In the revisited protocol a ranking ends with its last positive:
    the first `min(cutoff, rank of the last positive + 1)` images count.

    Args:
        ranks: Ranks of the positives.
        cutoff: Largest number of images that count.

    Returns:
        Float in 0..1; NaN without positives.

    Example: a cutoff beyond the last positive

    >>> precision_at([1], 10)
    0.5
    """
    ranks = np.asarray(ranks)
    if len(ranks) == 0:
        return float("nan")
    first = min(cutoff, int(ranks.max()) + 1)
    return float(np.mean(np.isin(np.arange(first), ranks)))


def positive_ranks(ranking, positives, junk=()):
    """Ranks of the positives in a ranking without its junk.

    Args:
        ranking: Numbers of images, best first.
        positives, junk: Numbers of images.
    """
    kept = np.asarray(ranking)[~np.isin(ranking, _numbers(junk))]
    return np.flatnonzero(np.isin(kept, _numbers(positives)))


def rank(queries, database):
    """Ranks all images for each query, the most similar first.

    Args:
        queries, database: Descriptors `(queries, dimension)` and `(images, dimension)`,
            compared by their dot product.

    Returns:
        Integers `(queries, images)`; images that are equally similar keep their order.
    """
    similarities = np.asarray(queries) @ np.asarray(database).T
    return np.argsort(-similarities, axis=1, kind="stable")


def retrieval_scores(
    rankings: Sequence,
    positives: Sequence,
    junk: Sequence | None = None,
    cutoffs: Sequence[int] = CUTOFFS,
):
    """Mean average precision and mean precision at some cutoffs.

    Args:
        rankings: For each query the numbers of images, best first.
        positives: For each query the numbers of its positives. Queries without any
            are left out of all means.
        junk: For each query the numbers of the images to leave out, if any.
        cutoffs: Largest numbers of images that count, see `precision_at`.

    Returns:
        Dict of `queries`, the number of those that have positives; `map`; `mp@K` for
        each cutoff `K`. The means are in 0..1, NaN without queries.

    Raises:
        ValueError: If there are not as many rankings as sets.

    Example:

    >>> retrieval_scores([[2, 0, 1]], positives=[[2, 1]], cutoffs=[2])
    {'queries': 1, 'map': 0.7916666666666666, 'mp@2': 0.5}
    """
    junk = [()] * len(positives) if junk is None else junk
    if not len(rankings) == len(positives) == len(junk):
        raise ValueError(
            "Expected positives and junk of each query. Received: "
            f"{len(rankings)} rankings, {len(positives)} and {len(junk)} sets"
        )
    rows = []
    for ranking, right, left_out in zip(rankings, positives, junk, strict=True):
        count = len(np.unique(_numbers(right)))
        if count == 0:
            continue
        ranks = positive_ranks(ranking, right, left_out)
        precisions = [
            precision_at(ranks, cutoff) if len(ranks) else 0.0 for cutoff in cutoffs
        ]
        rows.append([average_precision(ranks, count), *precisions])
    means = np.mean(rows, axis=0) if rows else np.full(1 + len(cutoffs), np.nan)
    names = ["map", *(f"mp@{cutoff}" for cutoff in cutoffs)]
    return {"queries": len(rows), **dict(zip(names, means.tolist(), strict=True))}


def revisited_scores(
    rankings: Sequence,
    ground_truth: Sequence[Mapping[str, Sequence[int]]],
    cutoffs: Sequence[int] = CUTOFFS,
):
    """The scores of the three setups of revisited Oxford and Paris.

    - easy: easy images are positive, hard ones are junk,
    - medium: easy and hard images are positive,
    - hard: hard images are positive, easy ones are junk.

    Args:
        rankings: For each query the numbers of images, best first.
        ground_truth: For each query a dict of `easy`, `hard` and `junk`, the numbers
            of images.
        cutoffs: See `precision_at`.

    Returns:
        Dict of `easy`, `medium` and `hard`, each as `retrieval_scores` returns it.
    """

    def joined(kinds):
        return [
            np.concatenate([_numbers(entry[kind]) for kind in kinds])
            for entry in ground_truth
        ]

    return {
        setup: retrieval_scores(rankings, joined(right), joined(left_out), cutoffs)
        for setup, (right, left_out) in SETUPS.items()
    }


def retrieval_map(embeddings, labels):
    """Mean average precision of labelled images that search each other.

    Every image ranks all others by cosine similarity; those with its label are
    positive. Images that are alone with their label are not queries.

    Args:
        embeddings: `(images, dimension)`.
        labels: `(images,)`.

    Returns:
        Float in 0..1.

    Raises:
        ValueError: If no two images have the same label, or the lengths differ.

    Example: two pairs, whose images find each other first

    >>> retrieval_map([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], [0, 0, 1, 1])
    1.0
    """
    precisions = [
        average_precision(np.flatnonzero(right))
        for right in _rightness(embeddings, labels)
    ]
    return float(np.mean(precisions))


def recall_at(embeddings, labels, cutoff: int = 1) -> float:
    """Share of labelled images with one of their label among the nearest others.

    Args:
        embeddings: `(images, dimension)`.
        labels: `(images,)`.
        cutoff: Number of nearest others.

    Returns:
        Float in 0..1.

    Raises:
        ValueError: If no two images have the same label, or the lengths differ.
    """
    found = [np.any(right[:cutoff]) for right in _rightness(embeddings, labels)]
    return float(np.mean(found))


def _rightness(embeddings, labels):
    """Yields for each image whether those that it finds, best first, have its label."""
    embeddings, labels = np.asarray(embeddings, "float32"), np.asarray(labels)
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
        raise ValueError(
            "Expected embeddings (images, dimension) and one label per image. "
            f"Received: shapes {embeddings.shape} and {labels.shape}"
        )
    _, kinds, counts = np.unique(labels, return_inverse=True, return_counts=True)
    queries = np.flatnonzero(counts[kinds] > 1)
    if len(queries) == 0:
        raise ValueError(
            "Expected labels that several images have. Received: "
            f"{len(labels)} images, each alone with its label"
        )
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    units = embeddings / np.maximum(lengths, 1e-12)
    for part in np.array_split(queries, -(-len(queries) * len(labels) // BLOCK)):
        for query, ranking in zip(part, rank(units[part], units), strict=True):
            yield labels[ranking[ranking != query]] == labels[query]


def _numbers(images):
    return np.asarray(images, "int64").reshape(-1)
