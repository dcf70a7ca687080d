"""Metrics of maps beside the curves, on numbers that are known."""

import numpy as np
import pytest

from keras_attn import metrics
from keras_attn.metrics.map_masks import masks_of_boxes
from keras_attn.metrics.road import NEIGHBOURS, imputed

RANDOM = np.random.default_rng(0)


def test_imputed_pixels_are_the_means_of_their_neighbours():
    images = RANDOM.uniform(size=(2, 6, 7, 2))
    missing = RANDOM.uniform(size=(2, 6, 7)) < 0.6
    found = imputed(images, missing)
    np.testing.assert_array_equal(found[~missing], images[~missing])
    # All equations at once, one row per missing pixel.
    for image, holes, filled in zip(images, missing, found, strict=True):
        places = list(zip(*np.nonzero(holes), strict=True))
        left, right = np.zeros((len(places), len(places))), np.zeros((len(places), 2))
        for row, (y, x) in enumerate(places):
            for (dy, dx), weight in NEIGHBOURS.items():
                if 0 <= y + dy < 6 and 0 <= x + dx < 7:
                    left[row, row] += weight
                    if holes[y + dy, x + dx]:
                        left[row, places.index((y + dy, x + dx))] -= weight
                    else:
                        right[row] += weight * image[y + dy, x + dx]
        wanted = np.linalg.solve(left, right)
        np.testing.assert_allclose(filled[holes], wanted, atol=1e-4)


def test_road_removes_the_important_pixels_first():
    images = np.full((2, 6, 8, 3), 100, "uint8")
    images[:, 2:4, 2:4] = 200

    def predict(images):
        bright = images.max(axis=(1, 2, 3)) > 150
        return np.stack([~bright, bright], axis=1).astype("float32")

    maps = np.stack([images[0, ..., 0], 255 - images[0, ..., 0]])
    found = metrics.road_curve(predict, images, maps, shares=[0.1, 0.5])
    np.testing.assert_array_equal(found["kept"], [[False, False], [True, True]])
    np.testing.assert_array_equal(found["means"], [0, 1])
    for shares in ([], [0.0], [1.0]):
        with pytest.raises(ValueError, match="`shares`"):
            metrics.road_curve(predict, images, maps, shares=shares)


def test_a_map_of_the_weights_is_faithful():
    weights = RANDOM.standard_normal((5, 6))

    def predict(images):
        score = (images[..., 0] * weights).sum(axis=(1, 2))
        return np.stack([score, -score], axis=1)

    images = np.ones((2, 5, 6, 1))
    maps = np.stack([weights, -weights])
    found = metrics.faithfulness_correlation(
        predict, images, maps, np.array([0, 0]), subsets=20, baseline=0
    )
    np.testing.assert_allclose(found, [1, -1])
    flat = metrics.faithfulness_correlation(predict, images, np.ones((2, 5, 6)))
    np.testing.assert_array_equal(flat, 0)
    with pytest.raises(ValueError, match="`size`"):
        metrics.faithfulness_correlation(predict, images, maps, size=31)


def test_sensitivity_is_relative_to_the_map():
    images = RANDOM.uniform(size=(2, 4, 5, 1))

    def explain(images):
        return np.stack([3 * images[0, ..., 0], 0 * images[1, ..., 0]])

    found = metrics.max_sensitivity(explain, images, samples=2, radius=0.1)
    drawn = np.random.default_rng(0)
    spread = 0.1 * np.ptp(images[0])
    changes = [drawn.uniform(-1, 1, images.shape)[0] for _ in range(2)]
    largest = max(np.linalg.norm(spread * change) for change in changes)
    assert found[0] == pytest.approx(largest / np.linalg.norm(images[0]))
    assert np.isnan(found[1])


def test_relevance_in_boxes():
    maps = np.zeros((2, 4, 6))
    maps[:, 1, 1], maps[:, 3, 5] = 3, 1
    masks = masks_of_boxes([[0, 0, 2, 2], [-1, -1, -1, -1]], (4, 6))
    assert masks.sum(axis=(1, 2)).tolist() == [4, 0]
    mass = metrics.relevance_mass_accuracy(maps, masks)
    assert mass[0] == 0.75 and np.isnan(mass[1])
    rank = metrics.relevance_rank_accuracy(maps, masks)
    # The highest cell, and two of zero in the upper row.
    assert rank[0] == 0.75 and np.isnan(rank[1])
    with pytest.raises(ValueError, match="shapes"):
        metrics.relevance_rank_accuracy(maps, masks[:1])


def test_sparseness():
    maps = np.zeros((3, 2, 4))
    maps[0], maps[1, 0, 0] = 2, -5
    np.testing.assert_allclose(metrics.sparseness(maps), [0, 7 / 8, 0])
