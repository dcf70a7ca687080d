"""Fits of whitening to descriptors, in NumPy.

Both fits return `(mean, projection)`, the weights of `keras_attn.layers.Whitening`: a
descriptor `x` becomes `(x - mean) projection`, scaled to length one. Learn them on
images other than those that are searched.
"""

from typing import NamedTuple

import numpy as np

EPSILON = 1e-6


class WhiteningWeights(NamedTuple):
    """`mean` `(dimension,)` and `projection` `(dimension, dimensions kept)`."""

    mean: np.ndarray
    projection: np.ndarray


def pca_whitening(descriptors, dimensions: int | None = None):
    """PCA whitening: each kept direction gets variance one.

    Jegou and Chum, "Negative evidences and co-occurences in image retrieval": with
    the eigenvalues and eigenvectors `L`, `E` of the covariance (of the larger
    eigenvalues, if fewer dimensions are kept), the projection is `E L^(-1/2)`.

    Args:
        descriptors: `(images, dimension)`.
        dimensions: Number of dimensions to keep; by default all along which descriptors
            differ.

    Returns:
        `WhiteningWeights`, float32, the largest variance first. A column is defined up
        to its sign; its largest entry is made positive.

    Raises:
        ValueError: If the descriptors differ along fewer dimensions than are to be
            kept.

    Example:

    >>> descriptors = np.random.default_rng(0).normal(size=(100, 8))
    >>> pca_whitening(descriptors, 5).projection.shape
    (8, 5)
    """
    descriptors = _checked(descriptors)
    mean = descriptors.mean(axis=0)
    centred = descriptors - mean
    values, vectors = _principal(centred.T @ centred / len(centred))
    tiny = values[0] * len(values) * np.finfo("float32").eps
    known = int(np.sum(values > tiny))
    kept = known if dimensions is None else dimensions
    if not 1 <= kept <= known:
        raise ValueError(
            f"Expected `dimensions` from 1 to {known}, along which the "
            f"{len(descriptors)} descriptors differ. Received: dimensions={dimensions}"
        )
    return _weights(mean, vectors[:, :kept] / np.sqrt(values[:kept]))


def learned_whitening(descriptors, queries, positives, dimensions: int | None = None):
    """Whitening learned from pairs of matching images.

    Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation",
    section 3.3, after Mikolajczyk and Matas. The differences of matching descriptors
    get covariance one, `P = cholesky(C)^(-1)`; then a rotation to the principal
    directions of all descriptors, projected so, puts the important ones first.

    As published, the mean is that of the queries only, and the rotation divides by no
    eigenvalues.

    Args:
        descriptors: `(images, dimension)`.
        queries, positives: `(pairs,)` numbers of the images that match.
        dimensions: Number of dimensions to keep; by default all.

    Returns:
        `WhiteningWeights`, float32, see `pca_whitening`.

    Raises:
        ValueError: If queries and positives are not equally many numbers of
            descriptors, or if there are fewer dimensions.

    Example:

    >>> descriptors = np.random.default_rng(0).normal(size=(100, 8))
    >>> learned_whitening(descriptors, range(50), range(50, 100)).projection.shape
    (8, 8)
    """
    descriptors = _checked(descriptors)
    queries, positives = (np.asarray(x, "int64") for x in (queries, positives))
    if queries.shape != positives.shape or queries.ndim != 1 or not len(queries):
        raise ValueError(
            "Expected a positive for each query, at least one. "
            f"Received: shapes {queries.shape} and {positives.shape}"
        )
    numbers = np.concatenate([queries, positives])
    if numbers.min() < 0 or numbers.max() >= len(descriptors):
        raise ValueError(
            f"Expected numbers of {len(descriptors)} descriptors. Received: "
            f"{numbers.min()} to {numbers.max()}"
        )
    dimension = descriptors.shape[1]
    kept = dimension if dimensions is None else dimensions
    if not 1 <= kept <= dimension:
        raise ValueError(
            f"Expected `dimensions` from 1 to {dimension}. "
            f"Received: dimensions={dimensions}"
        )
    mean = descriptors[queries].mean(axis=0)
    differences = descriptors[queries] - descriptors[positives]
    whitened = np.linalg.inv(_cholesky(differences.T @ differences / len(queries))).T
    projected = (descriptors - mean) @ whitened
    _, rotation = _principal(projected.T @ projected)
    return _weights(mean, whitened @ rotation[:, :kept])


def whiten(descriptors, mean, projection):
    """Whitened descriptors, as `keras_attn.layers.Whitening` computes them.

    Args:
        descriptors: `(images, dimension)`.
        mean, projection: `WhiteningWeights`.

    Returns:
        `(images, dimensions kept)`, of length one.
    """
    projected = (np.asarray(descriptors) - mean) @ projection
    lengths = np.linalg.norm(projected, axis=-1, keepdims=True)
    return projected / (lengths + EPSILON)


def _checked(descriptors):
    descriptors = np.asarray(descriptors, "float64")
    if descriptors.ndim != 2 or len(descriptors) < 2:
        raise ValueError(
            "Expected descriptors of shape (images, dimension), at least two. "
            f"Received: shape {descriptors.shape}"
        )
    if not np.isfinite(descriptors).all():
        raise ValueError("Expected finite descriptors. Received: NaN or infinite ones")
    return descriptors


def _principal(matrix):
    """Eigenvalues of a symmetric matrix, the largest first, and eigenvectors."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return values[::-1], vectors[:, ::-1]


def _cholesky(matrix):
    """The Cholesky factor; of the matrix with a larger diagonal if it has none."""
    added = 0.0
    while True:
        try:
            return np.linalg.cholesky(matrix + added * np.eye(len(matrix)))
        except np.linalg.LinAlgError:
            added = 10 * added if added else 1e-10


def _weights(mean, projection):
    largest = np.abs(projection).argmax(axis=0)
    signs = np.sign(projection[largest, np.arange(projection.shape[1])])
    return WhiteningWeights(
        mean.astype("float32"), (projection * signs).astype("float32")
    )
