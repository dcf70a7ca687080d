"""Measures of what networks return, in NumPy."""

from keras_attn.metrics.localization import localization_errors
from keras_attn.metrics.nearest_neighbors import knn_accuracy, knn_votes
from keras_attn.metrics.retrieval import (
    average_precision,
    precision_at,
    recall_at,
    retrieval_map,
    retrieval_scores,
    revisited_scores,
)

__all__ = [
    "average_precision",
    "knn_accuracy",
    "knn_votes",
    "localization_errors",
    "precision_at",
    "recall_at",
    "retrieval_map",
    "retrieval_scores",
    "revisited_scores",
]
