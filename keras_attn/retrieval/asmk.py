"""ASMK: images as sets of visual words, each with a binary residual. In NumPy.

Tolias et al., "Image Search with Selective Match Kernels: Aggregation Across Single
and Multiple Images", in the binary form of Tolias et al., "Learning and aggregating
deep local descriptors for instance-level recognition". Local descriptors are assigned
to their nearest word of a codebook; an image keeps, for each of its words, the signs of
the sum of residuals. Two images are similar by the words that they share.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from keras_attn._checks import number_in

# Distances between descriptors and words in memory at a time.
BLOCK = 1 << 24
# Number of bits that are set in each byte.
BITS = np.unpackbits(np.arange(256, dtype="uint8")[:, None], axis=1).sum(axis=1)


class AggregatedImage(NamedTuple):
    """The visual words of an image.

    Args:
        words: `(words of the image,)`, their numbers, ascending.
        signs: `(words of the image, bytes)`, uint8, eight dimensions per byte; a bit is
            set where the sum of residuals is positive.
        dimension: Number of dimensions of the residuals.
    """

    words: np.ndarray
    signs: np.ndarray
    dimension: int


def nearest_words(descriptors, codebook, count: int = 1):
    """Numbers of the words nearest to each descriptor by Euclidean distance.

    Args:
        descriptors: `(descriptors, dimension)`.
        codebook: `(words, dimension)`.
        count: Number of words, at most all.

    Returns:
        Integers `(descriptors, count)`, the nearest first.

    Example:

    >>> nearest_words([[0.9, 0.0]], [[0.0, 0.0], [1.0, 0.0]])
    array([[1]])
    """
    descriptors, codebook = _checked(descriptors, codebook)
    if not 1 <= count <= len(codebook):
        raise ValueError(
            f"Expected `count` from 1 to {len(codebook)}, the number of words. "
            f"Received: count={count}"
        )
    squares = np.sum(codebook**2, axis=1)
    parts = [np.empty((0, count), "int64")]
    rows = max(1, BLOCK // len(codebook))
    for start in range(0, len(descriptors), rows):
        # The descriptor's own square does not change the order.
        distances = squares - 2 * descriptors[start : start + rows] @ codebook.T
        if count == 1:
            parts.append(distances.argmin(axis=1)[:, None])
        else:
            parts.append(distances.argsort(axis=1, kind="stable")[:, :count])
    return np.concatenate(parts)


def aggregate(descriptors, codebook, nearest: int = 1) -> "AggregatedImage":
    """The visual words of an image's local descriptors.

    For each word `c` that is nearest to some descriptors `x`: the signs of
    `sum of (x - c)`.

    Args:
        descriptors: `(descriptors, dimension)`, possibly none.
        codebook: `(words, dimension)`, such as the centroids of k-means.
        nearest: Words that each descriptor is assigned to; more than one for queries.

    Returns:
        `AggregatedImage`.

    Raises:
        ValueError: If descriptors and codebook do not have the same dimension.

    Example:

    >>> image = aggregate([[0.9, 0.1], [1.0, 0.2]], [[0.0, 0.0], [1.0, 0.0]])
    >>> image.words, np.unpackbits(image.signs, axis=1, count=2)
    (array([1]), array([[0, 1]], dtype=uint8))
    """
    descriptors, codebook = _checked(descriptors, codebook)
    assigned = nearest_words(descriptors, codebook, nearest).ravel()
    owners = np.repeat(np.arange(len(descriptors)), nearest)
    order = np.argsort(assigned, kind="stable")
    residuals = (descriptors[owners] - codebook[assigned])[order]
    words, starts = np.unique(assigned[order], return_index=True)
    sums = np.add.reduceat(residuals, starts, axis=0) if len(words) else residuals
    return AggregatedImage(words, np.packbits(sums > 0, axis=1), codebook.shape[1])


def inverse_document_frequency(database: Sequence["AggregatedImage"], words: int):
    """`log(images / images with the word)` of each word; 0 for one that no image has.

    Args:
        database: Sequence of `AggregatedImage`.
        words: Number of words of the codebook.

    Returns:
        `(words,)`.
    """
    numbers = np.concatenate([np.zeros(0, "int64"), *(x.words for x in database)])
    counts = np.bincount(numbers, minlength=words)
    return np.where(counts > 0, np.log(len(database) / np.maximum(counts, 1)), 0.0)


def asmk_similarity(
    queries: Sequence[AggregatedImage],
    database: "Sequence[AggregatedImage] | InvertedFile",
    power: float = 3.0,
    threshold: float = 0.0,
    idf=None,
):
    """Similarities of images by the words that they share.

    With `s = 1 - 2 h` for the share `h` of signs that differ, a shared word adds
    `s^power`, or nothing if `s` is below the threshold. The sum is divided by the roots
    of the numbers of words of both images, so that an image is similar to itself by 1.
    With `idf` a word counts by its square, also among the numbers of words.

    Args:
        queries: Sequence of `AggregatedImage`.
        database: Sequence of `AggregatedImage`, or an `InvertedFile` of one, which
            saves time where it is searched often.
        power: Exponent; larger ones let strong matches count for more.
        threshold: Smallest similarity of two residuals that counts, not negative.
        idf: Weight of each word, see `inverse_document_frequency`, or `None`.

    Returns:
        `(queries, images of the database)`, in 0..1.

    Raises:
        ValueError: If the threshold is negative or dimensions differ.

    Example:

    >>> codebook = np.array([[0.0, 0.0], [1.0, 0.0]])
    >>> image = aggregate([[0.1, 0.2], [0.9, 0.1]], codebook)
    >>> asmk_similarity([image], [image, aggregate([[0.1, 0.2]], codebook)])
    array([[1.        , 0.70710678]])
    """
    number_in("threshold", threshold, "[0, inf)")
    images = [database] if isinstance(database, InvertedFile) else database
    dimensions = {each.dimension for each in (*queries, *images)}
    if len(dimensions) > 1:
        raise ValueError(
            "Expected images aggregated with one codebook. "
            f"Received: residuals of dimensions {sorted(dimensions)}"
        )
    if isinstance(database, InvertedFile):
        file = database
    elif database:
        file = InvertedFile.of(database)
    else:
        return np.zeros((len(queries), 0))
    similarities = np.zeros((len(queries), file.count))
    lengths = file.lengths(idf)
    for query, row in zip(queries, similarities, strict=True):
        which, entries = file.entries_of(query.words)
        differing = BITS[query.signs[which] ^ file.signs[entries]]
        match = 1 - 2 * differing.sum(axis=1, dtype="int64") / file.dimension
        # Negative ones are left out before the power, which may be no integer.
        kernel = np.where(match >= threshold, np.maximum(match, 0) ** power, 0.0)
        if idf is not None:
            kernel *= np.square(np.asarray(idf)[query.words[which]])
        row[:] = np.bincount(file.images[entries], kernel, file.count)
        row /= np.maximum(_length(query.words, idf) * lengths, 1e-12)
    return similarities


class InvertedFile:
    """The words of all images of a database, ordered by word.

    Args:
        images: `(entries,)`, the number of the image of each entry.
        words: `(entries,)`, its word.
        signs: `(entries, bytes)`, its signs, see `AggregatedImage`.
        count: Number of images.
        dimension: Number of dimensions of the residuals.
    """

    def __init__(self, images, words, signs, count, dimension):
        order = np.argsort(words, kind="stable")
        self.images, self.words, self.signs = images[order], words[order], signs[order]
        self.count, self.dimension = count, dimension

    @classmethod
    def of(cls, database):
        """The inverted file of a sequence of at least one `AggregatedImage`."""
        return cls(
            np.repeat(np.arange(len(database)), [len(x.words) for x in database]),
            np.concatenate([image.words for image in database]),
            np.concatenate([image.signs for image in database]),
            len(database),
            database[0].dimension,
        )

    def entries_of(self, words):
        """Pairs of an index into `words` and an entry with that word."""
        starts = np.searchsorted(self.words, words, "left")
        counts = np.searchsorted(self.words, words, "right") - starts
        which = np.repeat(np.arange(len(words)), counts)
        before = np.cumsum(counts) - counts
        return which, np.arange(len(which)) + (starts - before)[which]

    def lengths(self, idf=None):
        """The root of the number of words of every image, weighted by `idf`."""
        weights = None if idf is None else np.square(np.asarray(idf)[self.words])
        return np.sqrt(np.bincount(self.images, weights, self.count))


def _length(words, idf):
    """The root of the number of words, or of the sum of their squared weights."""
    if idf is None:
        return np.sqrt(len(words))
    return np.sqrt(np.sum(np.square(np.asarray(idf)[words])))


def _checked(descriptors, codebook):
    descriptors, codebook = np.asarray(descriptors), np.asarray(codebook)
    if (
        descriptors.ndim != 2
        or codebook.ndim != 2
        or not len(codebook)
        or descriptors.shape[1] != codebook.shape[1]
    ):
        raise ValueError(
            "Expected descriptors and a codebook of one dimension. "
            f"Received: shapes {descriptors.shape} and {codebook.shape}"
        )
    return descriptors, codebook
