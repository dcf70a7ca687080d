"""Measures of what networks return, in NumPy."""

from keras_attn.metrics.localization import corloc, localization_errors
from keras_attn.metrics.map_boxes import energy_inside_box, pointing_game
from keras_attn.metrics.map_curves import deletion_curve, insertion_curve
from keras_attn.metrics.map_masks import (
    relevance_mass_accuracy,
    relevance_rank_accuracy,
    sparseness,
)
from keras_attn.metrics.map_trust import faithfulness_correlation, max_sensitivity
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
from keras_attn.metrics.road import road_curve

__all__ = [
    "average_precision",
    "corloc",
    "deletion_curve",
    "energy_inside_box",
    "faithfulness_correlation",
    "insertion_curve",
    "knn_accuracy",
    "knn_votes",
    "localization_errors",
    "max_sensitivity",
    "pointing_game",
    "precision_at",
    "randomization_check",
    "recall_at",
    "relevance_mass_accuracy",
    "relevance_rank_accuracy",
    "retrieval_map",
    "retrieval_scores",
    "revisited_scores",
    "road_curve",
    "sparseness",
]
