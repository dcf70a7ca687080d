import keras
import numpy as np
import pytest
from keras import ops

from keras_attn.ops.global_pooling import (
    cross_dimensional_mean,
    generalized_mean,
    l2_normalize,
    pooling_regions,
    regional_maximum,
)
from tests.harness import gradients, to_numpy
from tests.reference import retrieval as reference

# Regions that the longer side has more, by the code that was published with
# Radenovic et al., of maps where two numbers are equally good but for rounding.
EXTRA = {(11, 3): 5, (9, 5): 1, (18, 10): 1, (5, 9): 1, (6, 22): 5, (7, 7): 0}


def positive(shape, seed=0):
    """Like features behind a ReLU, one channel without any response."""
    values = np.random.default_rng(seed).normal(size=shape).astype("float32")
    values[..., 1] = -1
    return np.maximum(values, 0)


def over_images(function, images, *arguments):
    return np.stack([function(image, *arguments) for image in images])


@pytest.mark.parametrize("exponent", [0.5, 1.0, 3.0, 7.3])
def test_generalized_mean_equals_the_plain_version(exponent):
    features = positive((2, 5, 3, 7))
    pooled = to_numpy(generalized_mean(ops.convert_to_tensor(features), exponent))
    wanted = over_images(reference.generalized_mean, features, exponent)
    np.testing.assert_allclose(pooled, wanted, rtol=1e-4, atol=2e-6)


def test_generalized_mean_lies_between_the_mean_and_the_maximum():
    features = positive((2, 5, 3, 7)) + 0.01
    mean, maximum = features.mean(axis=(1, 2)), features.max(axis=(1, 2))
    inputs = ops.convert_to_tensor(features)
    np.testing.assert_allclose(to_numpy(generalized_mean(inputs, 1.0)), mean, 1e-5)
    # The n-th root of 15 cells, of which one is the largest.
    large = to_numpy(generalized_mean(inputs, 1000.0))
    assert np.all(large <= maximum * 1.00001)
    assert np.all(large >= maximum * 15 ** (-1 / 1000) * 0.99999)


def test_generalized_mean_does_not_overflow_and_grows_with_its_exponent():
    features = ops.convert_to_tensor(1e30 * positive((1, 5, 3, 4)))
    pooled = to_numpy(generalized_mean(features, 3.0))
    wanted = over_images(reference.generalized_mean, to_numpy(features), 3.0)
    np.testing.assert_allclose(pooled, wanted, rtol=1e-4, atol=2e-6)
    (slope,) = gradients(
        lambda p: ops.sum(generalized_mean(features / 1e30, p)), np.float32(3)
    )
    low, high = (
        over_images(reference.generalized_mean, to_numpy(features) / 1e30, p).sum()
        for p in (2.99, 3.01)
    )
    assert slope > 0 and slope == pytest.approx((high - low) / 0.02, rel=1e-3)


def test_cross_dimensional_mean_equals_the_plain_version():
    features = positive((3, 5, 4, 7))
    pooled = to_numpy(cross_dimensional_mean(ops.convert_to_tensor(features)))
    wanted = over_images(reference.cross_dimensional, features)
    np.testing.assert_allclose(pooled, wanted, rtol=1e-4, atol=1e-6)
    assert np.all(pooled[:, 1] == 0) and np.all(pooled[:, 0] > 0)


@pytest.mark.parametrize(
    "function",
    # Few regions, since JAX compiles each.
    [cross_dimensional_mean, lambda x: regional_maximum(x, levels=1), l2_normalize],
)
def test_of_nothing_there_is_nothing_and_its_gradient_is_finite(function):
    zeros = np.zeros((2, 5, 3, 4), "float32")
    assert np.all(to_numpy(function(ops.convert_to_tensor(zeros))) == 0)
    (slope,) = gradients(lambda x: ops.sum(function(x)), zeros)
    assert np.all(np.isfinite(slope))


@pytest.mark.parametrize(("height", "width"), EXTRA)
def test_regions_are_those_of_the_plain_version(height, width):
    extra = EXTRA[height, width]
    assert pooling_regions(height, width) == reference.regions(height, width, 3, extra)


@pytest.mark.parametrize(("height", "width"), [(11, 3), (5, 5)])
def test_regional_maximum_equals_the_plain_version(height, width):
    features = positive((2, height, width, 5))
    pooled = to_numpy(regional_maximum(ops.convert_to_tensor(features)))
    extra = EXTRA.get((height, width), 0)
    wanted = over_images(reference.regional_maximum, features, 3, extra)
    np.testing.assert_allclose(pooled, wanted, rtol=1e-4, atol=1e-5)


def test_numbers_of_regions_are_those_of_float32_in_torch():
    if keras.backend.backend() != "torch":
        pytest.skip("torch is imported only where it is the backend")
    import torch

    for side in range(1, 30):
        for longer in range(side + 1, 60):
            step = (longer - side) / torch.arange(1.0, 7.0)
            overlap = (side**2 - side * step) / side**2
            wanted = 2 + int((overlap - 0.4).abs().argmin())
            assert len(pooling_regions(side, longer, 1)) == wanted


def test_regions_of_a_square_map():
    regions = pooling_regions(14, 14)
    assert len(regions) == 14 and regions[0] == (0, 0, 14, 14)
    assert regions[1:5] == [(0, 0, 9, 9), (0, 5, 9, 14), (5, 0, 14, 9), (5, 5, 14, 14)]
    assert {box[2] - box[0] for box in regions[5:]} == {7}


def test_regions_of_the_smallest_maps():
    assert pooling_regions(1, 1) == [(0, 0, 1, 1)]
    long = pooling_regions(1, 5)
    assert (0, 0, 1, 1) in long and (0, 4, 1, 5) in long


@pytest.mark.parametrize("height", range(1, 25, 3))
@pytest.mark.parametrize("width", range(1, 25, 3))
def test_regions_lie_in_the_map_and_reach_its_borders(height, width):
    boxes = np.array(pooling_regions(height, width, 4))
    assert boxes.min() == 0
    # In float32 the last region may end a cell before the border, as published.
    assert height - 1 <= boxes[:, 2].max() <= height
    assert width - 1 <= boxes[:, 3].max() <= width
    assert set(map(tuple, boxes[:, [1, 0, 3, 2]])) == set(
        pooling_regions(width, height, 4)
    )


def test_neighbours_overlap_as_near_to_40_per_cent_as_they_can():
    # Steps of 10, 5 or 3.3 cells; and of 7.3, 5.5 or 4.4.
    for length, starts in ((20, [0, 5, 10]), (32, [0, 5, 11, 16, 22])):
        assert [x for _, x, _, _ in pooling_regions(10, length, 1)] == starts
