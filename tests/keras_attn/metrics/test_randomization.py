import keras
import numpy as np
import pytest
from keras import layers

from keras_attn.metrics import randomization_check
from keras_attn.metrics.randomization import rank_correlation, structural_similarity


@pytest.fixture(scope="module")
def maps():
    return np.random.default_rng(0).uniform(size=(3, 9, 11))


def test_ranks_agree_with_scipy(maps):
    stats = pytest.importorskip("scipy.stats")
    # Many equal values.
    first, second = np.round(4 * maps), np.round(3 * maps**2 + maps[::-1])
    wanted = [
        stats.spearmanr(a.ravel(), b.ravel())[0]
        for a, b in zip(first, second, strict=True)
    ]
    np.testing.assert_allclose(rank_correlation(first, second), wanted)


def test_rank_correlation_of_known_maps(maps):
    np.testing.assert_allclose(rank_correlation(maps, np.exp(5 * maps)), 1)
    np.testing.assert_allclose(rank_correlation(maps, -maps), -1)
    np.testing.assert_array_equal(rank_correlation(maps, np.ones_like(maps)), 0)


def slow_similarity(first, second, window):
    """One window after another; maps of 0..1."""
    values = []
    for y in range(first.shape[0] - window + 1):
        for x in range(first.shape[1] - window + 1):
            a, b = (m[y : y + window, x : x + window].ravel() for m in (first, second))
            covariance = np.cov(a, b)
            above = (2 * a.mean() * b.mean() + 1e-4) * (2 * covariance[0, 1] + 9e-4)
            below = (a.mean() ** 2 + b.mean() ** 2 + 1e-4) * (covariance.trace() + 9e-4)
            values.append(above / below)
    return np.mean(values)


def scaled(image):
    return (image - image.min()) / (image.max() - image.min())


@pytest.mark.parametrize("size, window", [((9, 11), 7), ((3, 5), 3)])
def test_similarity_equals_a_loop(maps, size, window):
    first, second = maps[:, : size[0], : size[1]], maps[::-1, : size[0], : size[1]]
    second = 0.5 * second + first
    wanted = [
        slow_similarity(scaled(a), scaled(b), window)
        for a, b in zip(first, second, strict=True)
    ]
    np.testing.assert_allclose(structural_similarity(first, second), wanted)
    np.testing.assert_allclose(structural_similarity(first, 3 * first + 1), 1)


def test_similarity_agrees_with_scikit_image(maps):
    metrics = pytest.importorskip("skimage.metrics")
    first, second = scaled(maps[0]), scaled(maps[1])
    wanted = metrics.structural_similarity(first, second, data_range=1, win_size=7)
    found = structural_similarity(first[None], second[None])
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.fixture
def model():
    inner = keras.Sequential(
        [keras.Input((4, 6, 2)), layers.Conv2D(3, 1, name="first"), layers.ReLU()],
        name="inner",
    )
    model = keras.Sequential(
        [
            keras.Input((4, 6, 2)),
            inner,
            layers.BatchNormalization(name="middle"),
            layers.Conv2D(5, 1, name="last"),
        ]
    )
    random = np.random.default_rng(0)
    model.set_weights([random.uniform(size=w.shape) for w in model.get_weights()])
    return model


def test_cascades_from_the_last_layer_and_restores(model):
    before = model.get_weights()
    changed, shuffled = [], []

    def explain(model):
        now = model.get_weights()
        pairs = list(zip(before, now, strict=True))
        changed.append([not np.array_equal(a, b) for a, b in pairs])
        shuffled.append(
            all(np.array_equal(np.sort(a, None), np.sort(b, None)) for a, b in pairs)
        )
        # The map of the first layer's kernel alone.
        return now[0].reshape(1, 2, 3)

    results = randomization_check(model, explain, seed=1)
    assert [each["layer"] for each in results] == ["last", "middle", "first"]
    assert [each["share"] for each in results] == pytest.approx([1 / 3, 2 / 3, 1])
    # kernel and bias, four of the normalisation, kernel and bias
    assert not any(changed[0]) and all(shuffled)
    assert not any(changed[1][:6]) and changed[1][6]
    assert not any(changed[2][:2]) and any(changed[2][2:6]) and changed[2][6]
    assert changed[3][0]
    for each in results[:2]:
        assert each["rank_correlation"] == each["similarity"] == pytest.approx(1)
    assert results[2]["rank_correlation"] < 0.9
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_stages_and_errors(model):
    before = model.get_weights()
    maps = np.eye(4)[None]
    results = randomization_check(model, lambda model: maps, stages=2)
    assert [each["layer"] for each in results] == ["middle", "first"]
    assert len(randomization_check(model, lambda model: maps, stages=4)) == 3
    with pytest.raises(ValueError, match="at least 1.*3 layers.*stages=0"):
        randomization_check(model, lambda model: maps, stages=0)
    calls = []

    def fails(model):
        calls.append(model)
        if len(calls) == 3:
            raise RuntimeError("stop")
        return maps

    with pytest.raises(RuntimeError, match="stop"):
        randomization_check(model, fails)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
