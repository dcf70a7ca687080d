"""Labels that are no class, in all losses: an error, or NaN where compiled."""

import keras
import numpy as np
import pytest

from keras_attn.losses import (
    ConsistencyLoss,
    PatchCrossentropy,
    dino_loss,
    mixed_patch_loss,
)
from keras_attn.metrics import deletion_curve, knn_accuracy, knn_votes
from tests.keras_attn.compiling import compiled

LABELS = np.array([3, 1, 2, 0])
SCORES = np.random.default_rng(0).normal(size=(4, 3, 2, 5)).astype("float32")
# Where values are unknown, a shape is refused all the same.
WRONG_SHAPES = [np.eye(5)[LABELS], LABELS[:3], LABELS[:, None, None], np.array(3)]


def traced(function):
    """The function in a graph, where values are unknown; torch has none here."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    return compiled(function)


@pytest.mark.parametrize("loss", [PatchCrossentropy(), ConsistencyLoss()])
@pytest.mark.parametrize("labels", WRONG_SHAPES, ids=lambda x: str(x.shape))
def test_shapes_are_refused(loss, labels):
    for call in (loss, traced(loss)):
        with pytest.raises(ValueError, match="`y_true` to be integer labels"):
            call(labels.astype("float32"), SCORES)


def test_one_hot_labels_of_one_image_are_refused():
    with pytest.raises(ValueError, match=r"y_true.shape=\(1, 5\)"):
        PatchCrossentropy()(np.eye(5)[:1], SCORES[:1])


@pytest.mark.parametrize("loss", [PatchCrossentropy(), ConsistencyLoss()])
def test_empty_batches_are_refused(loss):
    with pytest.raises(ValueError, match="at least one image"):
        loss(LABELS[:0], SCORES[:0])


@pytest.mark.parametrize("wrong", [-1, 5, 1.5])
def test_labels_that_are_no_class(wrong):
    labels = np.array([3, 1, wrong, 0], "float32")
    for loss in (PatchCrossentropy(), mixed_patch_loss()["loss"]["logits"]):
        with pytest.raises(ValueError, match=r"labels in 0..4. Received: y_true=\["):
            loss(labels, SCORES)
    if keras.backend.backend() != "torch":
        values = traced(PatchCrossentropy(reduction="none"))(labels, SCORES)
        found = np.isnan(keras.ops.convert_to_numpy(values))
        assert found.tolist() == [False, False, True, False]


def test_consistency_takes_any_whole_numbers():
    shifted = ConsistencyLoss()(LABELS % 2 - 1, SCORES)
    assert float(shifted) == float(ConsistencyLoss()(LABELS % 2, SCORES))
    with pytest.raises(ValueError, match="integer labels"):
        ConsistencyLoss()(np.array([0, 2**24, 0, 1]), SCORES)


def test_dino_loss_takes_scores_of_the_same_images():
    scores = np.zeros((4, 3, 7), "float32")
    for teacher in (scores[:1, :2], scores[0, :2]):
        with pytest.raises(ValueError, match="same images"):
            dino_loss(scores, teacher)
    with pytest.raises(ValueError, match="at least one"):
        dino_loss(scores[:0], scores[:0, :2])
    with pytest.raises(ValueError, match="`center`"):
        dino_loss(scores, scores[:, :2], np.zeros(1))


def test_metrics_refuse_labels():
    features = np.eye(3)
    with pytest.raises(ValueError, match="integer labels in 0..2"):
        knn_votes(features, features, [0, 1, -1], 3)
    with pytest.raises(ValueError, match="a label for each"):
        knn_accuracy(features, np.eye(3), features, [0, 1, 2])
    images, maps = np.ones((2, 4, 4, 3)), np.ones((2, 4, 4))
    for labels in ([0, -1], [0, 2]):
        with pytest.raises(ValueError, match="`labels` in 0..1"):
            deletion_curve(
                lambda images: np.ones((len(images), 2)), images, maps, labels, 2
            )
