import math

import numpy as np
import pytest

from keras_attn.metrics import knn_accuracy, knn_votes, nearest_neighbors


def data(images=23, training=61, width=5, classes=4):
    generator = np.random.default_rng(0)
    return (
        generator.standard_normal((images, width)),
        generator.integers(0, classes, images),
        3 * generator.standard_normal((training, width)),
        generator.integers(0, classes, training),
    )


def slow_votes(feature, train_features, train_labels, num_classes, k, temperature):
    """One image, one training image after the other."""
    found = []
    for other, label in zip(train_features, train_labels, strict=True):
        cosine = sum(a * b for a, b in zip(feature, other, strict=True))
        cosine /= math.hypot(*feature) * math.hypot(*other)
        found.append((cosine, label))
    votes = [0.0] * num_classes
    for cosine, label in sorted(found, reverse=True)[:k]:
        votes[label] += math.exp(cosine / temperature)
    return np.array(votes) / sum(votes)


@pytest.mark.parametrize("k", [1, 20, 100])
def test_equals_the_slow_version(monkeypatch, k):
    # In several parts, the last of which is smaller.
    monkeypatch.setattr(nearest_neighbors, "CHUNK", 5 * 61)
    features, labels, train_features, train_labels = data()
    found = knn_votes(features, train_features, train_labels, 4, k, 0.2)
    wanted = [
        slow_votes(feature, train_features, train_labels, 4, k, 0.2)
        for feature in features
    ]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    accuracy = knn_accuracy(features, labels, train_features, train_labels, k, 0.2)
    assert accuracy == np.mean(np.argmax(wanted, axis=1) == labels)
    assert 0 < accuracy < 1


def test_a_cold_temperature_leaves_the_nearest_one_alone():
    features, _, train_features, train_labels = data()
    cold = knn_votes(features, train_features, train_labels, 4, 20, 1e-4)
    single = knn_votes(features, train_features, train_labels, 4, k=1)
    np.testing.assert_array_equal(cold.argmax(axis=1), single.argmax(axis=1))
    assert np.isfinite(cold).all()


def test_training_images_find_themselves():
    *_, train_features, train_labels = data()
    same = knn_accuracy(
        2 * train_features, train_labels, train_features, train_labels, 1
    )
    assert same == 1.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"k": 0}, "k=0"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"train_labels": np.zeros(3, int)}, r"labels of shape \(3,\)"),
        ({"features": np.zeros((2, 4))}, "4 and 5"),
        ({"features": np.zeros(4)}, r"shape \(4,\)"),
    ],
)
def test_wrong_arguments(changes, words):
    features, _, train_features, train_labels = data()
    arguments = {
        "features": features,
        "train_features": train_features,
        "train_labels": train_labels,
        "num_classes": 4,
    }
    with pytest.raises(ValueError, match=words):
        knn_votes(**{**arguments, **changes})
