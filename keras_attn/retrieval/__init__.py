"""Fits for retrieval in NumPy: whitening and ASMK."""

from keras_attn.retrieval.asmk import (
    AggregatedImage,
    InvertedFile,
    aggregate,
    asmk_similarity,
    inverse_document_frequency,
    nearest_words,
)
from keras_attn.retrieval.whitening import (
    WhiteningWeights,
    learned_whitening,
    pca_whitening,
    whiten,
)

__all__ = [
    "AggregatedImage",
    "InvertedFile",
    "WhiteningWeights",
    "aggregate",
    "asmk_similarity",
    "inverse_document_frequency",
    "learned_whitening",
    "nearest_words",
    "pca_whitening",
    "whiten",
]
