"""The visual words of ASMK: the centroids of local descriptors, by FAISS's k-means."""

import numpy as np

from keras_attn.training.retrieval.nearest import require_faiss

# As FAISS does by default, k-means sees at most so many descriptors a word.
MOST_A_WORD = 256


def learn_codebook(descriptors, words, iterations=20, seed=0):
    """A codebook for `keras_attn.retrieval.asmk`.

    Args:
        descriptors: `(descriptors, dimension)`, of images other than those searched.
        words: Number of centroids; 65,536 in the literature.
        iterations: Of k-means.
        seed: Of its start.

    Returns:
        `(words, dimension)`, float32.

    Raises:
        ImportError: If FAISS is not installed.
        ValueError: If there are fewer descriptors than words.
    """
    faiss = require_faiss()
    descriptors = np.ascontiguousarray(descriptors, "float32")
    if descriptors.ndim != 2 or not 1 <= words <= len(descriptors):
        raise ValueError(
            "Expected at least as many descriptors (descriptors, dimension) as words. "
            f"Received: shape {descriptors.shape}, words={words}"
        )
    kmeans = faiss.Kmeans(
        descriptors.shape[1],
        words,
        niter=iterations,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=MOST_A_WORD,
    )
    kmeans.train(descriptors)
    return kmeans.centroids
