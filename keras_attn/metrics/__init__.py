"""Measures of what networks return, in NumPy."""

from keras_attn.metrics.localization import localization_errors
from keras_attn.metrics.map_boxes import energy_inside_box, pointing_game
from keras_attn.metrics.map_curves import deletion_curve, insertion_curve
from keras_attn.metrics.nearest_neighbors import knn_accuracy, knn_votes
from keras_attn.metrics.randomization import randomization_check
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
    "deletion_curve",
    "energy_inside_box",
    "insertion_curve",
    "knn_accuracy",
    "knn_votes",
    "localization_errors",
    "pointing_game",
    "precision_at",
    "randomization_check",
    "recall_at",
    "retrieval_map",
    "retrieval_scores",
    "revisited_scores",
]
