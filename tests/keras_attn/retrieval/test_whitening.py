import numpy as np
import pytest

from keras_attn.retrieval.whitening import learned_whitening, pca_whitening, whiten
from tests.reference import retrieval as reference

QUERIES, POSITIVES = range(0, 60, 2), range(1, 60, 2)


def correlated(seed=0, images=60, dimension=7):
    """Neighbours match: they differ by less than others do."""
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(dimension, dimension))
    things = np.repeat(generator.normal(size=(images // 2, dimension)), 2, axis=0)
    noise = 0.3 * generator.normal(size=(images, dimension))
    return (things + noise) @ mixing + generator.normal(size=dimension)


def assert_same_up_to_signs(found, wanted):
    signs = np.sign(np.sum(found * wanted, axis=0))
    np.testing.assert_allclose(found * signs, wanted, atol=1e-4)


@pytest.mark.parametrize("dimensions", [7, 4])
def test_pca_equals_a_version_by_singular_values(dimensions):
    descriptors = correlated()
    weights = pca_whitening(descriptors, dimensions)
    found = whiten(descriptors, *weights)
    assert_same_up_to_signs(found, reference.pca_whitened(descriptors, dimensions))
    projected = (descriptors - weights.mean) @ weights.projection
    covariance = np.cov(projected.T, bias=True)
    np.testing.assert_allclose(covariance, np.eye(dimensions), atol=1e-4)


@pytest.mark.parametrize("dimensions", [7, 4])
def test_learned_equals_a_version_by_roots(dimensions):
    descriptors = correlated()
    weights = learned_whitening(descriptors, QUERIES, POSITIVES, dimensions)
    found = whiten(descriptors, *weights)
    wanted = reference.learned_whitened(descriptors, QUERIES, POSITIVES, dimensions)
    assert_same_up_to_signs(found, wanted)


def test_learned_whitens_differences_of_pairs_and_only_rotates_then():
    descriptors = correlated()
    mean, projection = learned_whitening(descriptors, QUERIES, POSITIVES)
    np.testing.assert_allclose(mean, descriptors[::2].mean(axis=0), rtol=1e-5)
    projected = (descriptors - mean) @ projection
    differences = projected[::2] - projected[1::2]
    second_moments = differences.T @ differences / 30
    np.testing.assert_allclose(second_moments, np.eye(7), atol=1e-4)
    spread = projected.T @ projected
    np.testing.assert_allclose(spread, np.diag(np.diag(spread)), atol=1e-2)
    assert np.all(np.diff(np.diag(spread)) < 0)


def test_signs_are_fixed():
    descriptors = correlated()
    for projection in (
        pca_whitening(descriptors).projection,
        learned_whitening(descriptors, QUERIES, POSITIVES).projection,
    ):
        assert np.all(np.abs(projection).max(axis=0) == projection.max(axis=0))


def test_directions_without_variance_are_left_out_or_refused():
    descriptors = correlated(images=4)
    assert pca_whitening(descriptors).projection.shape == (7, 3)
    with pytest.raises(ValueError, match="from 1 to 3, along which the 4 desc.*=5"):
        pca_whitening(descriptors, 5)
    with pytest.raises(ValueError, match="from 1 to 0"):
        pca_whitening(np.ones((5, 3)))


def test_few_pairs_get_a_larger_diagonal():
    descriptors = correlated()
    weights = learned_whitening(descriptors, [0, 2], [1, 3])
    assert np.all(np.isfinite(weights.projection))
    found = whiten(descriptors, *weights)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-3)
    np.testing.assert_allclose(found[0], found[1], atol=0.05)


@pytest.mark.parametrize(
    ("queries", "positives", "dimensions", "message"),
    [
        ([0, 1], [2], None, "a positive for each query"),
        ([], [], None, "at least one"),
        ([0], [60], None, "numbers of 60 descriptors.*0 to 60"),
        ([0], [1], 8, "from 1 to 7.*dimensions=8"),
    ],
)
def test_learned_refuses_bad_pairs(queries, positives, dimensions, message):
    with pytest.raises(ValueError, match=message):
        learned_whitening(correlated(), queries, positives, dimensions)


def test_refuses_what_are_no_descriptors():
    with pytest.raises(ValueError, match="at least two.*shape \\(1, 3\\)"):
        pca_whitening(np.ones((1, 3)))
    with pytest.raises(ValueError, match="finite"):
        pca_whitening([[1.0, 2.0], [np.nan, 0.0]])
