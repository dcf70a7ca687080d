"""Weighted k nearest neighbours: quality of features without training on them."""

import numpy as np

# Similarities held at the same time, in numbers.
CHUNK = 2**24


def knn_votes(
    features,
    train_features,
    train_labels,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
):
    """Votes of the nearest training images for each class.

    Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance
    Discrimination", section 3.4, and the evaluation of DINO: the `k` training images
    of greatest cosine similarity `s` each vote for their class with the weight
    `exp(s / temperature)`.

    Args:
        features: `(images, width)`, of any length.
        train_features: `(training images, width)`.
        train_labels: `(training images,)` integers in `[0, num_classes)`.
        num_classes: Number of classes.
        k: Number of neighbours; all training images if there are fewer.
        temperature: Positive number.

    Returns:
        float64 array `(images, num_classes)`. Each row sums to 1.

    Raises:
        ValueError: If the arguments do not fit together.

    Example:

    >>> train = np.array([[1.0, 0.0], [0.0, 2.0]])
    >>> knn_votes(np.array([[3.0, 0.1]]), train, [0, 1], 2, k=1)
    array([[1., 0.]])

    Reference: [wu2018] arXiv:1805.01978, section 3.4.
    """
    train_labels = np.asarray(train_labels)
    features, train = _unit(features), _unit(train_features)
    if not len(train) or train_labels.shape != train.shape[:1]:
        raise ValueError(
            "Expected a label for each of some training features. Received: labels of "
            f"shape {train_labels.shape} for features of shape {train.shape}"
        )
    whole = train_labels.dtype.kind in "iu"
    if not whole or train_labels.min() < 0 or train_labels.max() >= num_classes:
        raise ValueError(
            f"Expected integer labels in 0..{num_classes - 1}. Received: "
            f"{train_labels.dtype} from {train_labels.min()} to {train_labels.max()}"
        )
    if features.shape[1] != train.shape[1]:
        raise ValueError(
            "Expected features of the same width. "
            f"Received: {features.shape[1]} and {train.shape[1]}"
        )
    if k < 1 or not temperature > 0:
        raise ValueError(
            "Expected `k` of at least 1 and a positive `temperature`. "
            f"Received: k={k}, temperature={temperature}"
        )
    k = min(k, len(train))
    votes = np.zeros((len(features), num_classes))
    rows = max(1, CHUNK // len(train))
    for start in range(0, len(features), rows):
        similarities = features[start : start + rows] @ train.T
        nearest = np.argpartition(-similarities, k - 1, axis=1)[:, :k]
        chosen = np.take_along_axis(similarities, nearest, axis=1).astype("float64")
        # Relative to the nearest, which changes no share and cannot overflow.
        weights = np.exp((chosen - chosen.max(axis=1, keepdims=True)) / temperature)
        places = np.arange(start, start + len(weights))[:, None]
        np.add.at(votes, (places, train_labels[nearest]), weights)
    return votes / votes.sum(axis=1, keepdims=True)


def knn_accuracy(
    features,
    labels,
    train_features,
    train_labels,
    k: int = 20,
    temperature: float = 0.07,
):
    """Share of images whose nearest neighbours vote for the right class.

    Args:
        features: `(images, width)`, of any length.
        labels: `(images,)` integers.
        train_features: `(training images, width)`.
        train_labels: `(training images,)` integers.
        k: Number of neighbours; all training images if there are fewer.
        temperature: Positive number.

    Returns:
        Float in 0..1.

    Raises:
        ValueError: If the arguments do not fit together.

    Example:

    >>> train = np.array([[1.0, 0.0], [0.0, 2.0]])
    >>> knn_accuracy(np.array([[3.0, 0.1], [1.0, 0.1]]), [0, 1], train, [0, 1], k=1)
    0.5
    """
    labels = np.asarray(labels)
    if not len(features) or labels.shape != (len(features),):
        raise ValueError(
            "Expected a label for each of some features. Received: labels of shape "
            f"{labels.shape} for {len(features)} features"
        )
    num_classes = 1 + max(labels.max(), np.max(train_labels))
    votes = knn_votes(
        features, train_features, train_labels, num_classes, k, temperature
    )
    return float(np.mean(votes.argmax(axis=1) == labels))


def _unit(features):
    features = np.asarray(features, "float32")
    if features.ndim != 2:
        raise ValueError(
            "Expected features of shape (images, width). "
            f"Received: shape {features.shape}"
        )
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(lengths, np.finfo("float32").tiny)
