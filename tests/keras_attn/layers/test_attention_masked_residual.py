import numpy as np
import pytest
from keras import ops

from keras_attn.layers import AttentionMaskedResidual
from tests.harness import check_layer, example, gradients, run, to_numpy

SHAPE = (2, 7, 3, 5)


@pytest.fixture(scope="module")
def features():
    """Branch, shortcut and mask; the last in [0, 1]."""
    branch, shortcut, mask = (to_numpy(example(SHAPE, seed)) for seed in (1, 2, 3))
    return [branch, shortcut, 1 / (1 + np.exp(-mask))]


def masked(strength, target, features):
    return run(AttentionMaskedResidual(strength, target), list(features))


def test_keeps_the_promises_of_a_layer():
    check_layer(
        AttentionMaskedResidual,
        {"strength": 0.25, "target": "branch"},
        [SHAPE] * 3,
        other_shapes=[[(2, 4, 6, 3), (2, 4, 6, 3), (2, 4, 6, 1)]],
        expected_num_trainable_weights=0,
    )


@pytest.mark.parametrize("strength", [0, 0.3, 1])
def test_equals_the_equations(strength, features):
    branch, shortcut, mask = features
    wanted = {
        "shortcut": branch + shortcut * (1 - strength + strength * mask),
        "branch": branch * (1 - strength + strength * mask) + shortcut,
        "literal": branch + strength * shortcut * mask + strength * branch,
    }
    for target, value in wanted.items():
        np.testing.assert_allclose(
            masked(strength, target, features), np.maximum(value, 0), 1e-5, 1e-6
        )


@pytest.mark.parametrize("target", ["shortcut", "branch"])
def test_an_open_mask_is_an_ordinary_block_at_every_strength(target, features):
    branch, shortcut, mask = features
    wanted = np.maximum(branch + shortcut, 0)
    for strength in (0.1, 0.7, 1.0):
        found = masked(strength, target, [branch, shortcut, np.ones_like(mask)])
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("target, left", [("shortcut", 0), ("branch", 1)])
def test_a_shut_mask_leaves_one_of_the_two(target, left, features):
    shut = [*features[:2], np.zeros_like(features[2])]
    found = masked(1.0, target, shut)
    np.testing.assert_array_equal(found, np.maximum(features[left], 0))


@pytest.mark.parametrize("target", ["shortcut", "branch", "literal"])
def test_strength_zero_reads_no_mask(target, features):
    branch, shortcut, mask = features
    wanted = np.maximum(branch if target == "literal" else branch + shortcut, 0)
    layer = AttentionMaskedResidual(0, target)
    # A number that spoils whatever it is added to or multiplied with.
    spoilt = np.full_like(mask, np.nan)
    found = run(layer, [branch, shortcut, spoilt])
    np.testing.assert_array_equal(found, wanted)
    *_, gradient = gradients(lambda *inputs: ops.sum(layer(list(inputs))), *features)
    assert gradient is None or not np.any(gradient)


def test_gradients_of_the_masked_shortcut(features):
    branch, shortcut, mask = features
    layer = AttentionMaskedResidual(0.3)
    found = gradients(lambda *inputs: ops.sum(layer(list(inputs))), *features)
    open_cells = branch + shortcut * (0.7 + 0.3 * mask) > 0
    wanted = [1.0, 0.7 + 0.3 * mask, 0.3 * shortcut]
    for gradient, value in zip(found, wanted, strict=True):
        np.testing.assert_allclose(gradient, open_cells * value, 1e-5, 1e-6)


def test_a_mask_of_one_channel_serves_all(features):
    branch, shortcut, mask = features
    found = masked(0.6, "shortcut", [branch, shortcut, mask[..., :1]])
    repeated = np.repeat(mask[..., :1], SHAPE[-1], axis=-1)
    wanted = masked(0.6, "shortcut", [branch, shortcut, repeated])
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("strength", [-0.01, 1.5, float("nan"), "half", None])
def test_refuses_a_strength_outside_its_range(strength):
    with pytest.raises(ValueError, match=r"`strength` to be a number in \[0, 1\]"):
        AttentionMaskedResidual(strength)


def test_refuses_an_unknown_target():
    with pytest.raises(ValueError, match="Expected `target` to be one of"):
        AttentionMaskedResidual(target="residual")


@pytest.mark.parametrize(
    "shapes",
    [
        [SHAPE, (2, 7, 3, 4), SHAPE],
        [SHAPE, SHAPE, (2, 7, 4, 5)],
        [SHAPE, SHAPE, (2, 7, 3, 2)],
        [SHAPE, SHAPE],
    ],
)
def test_refuses_shapes_that_do_not_fit(shapes):
    with pytest.raises(ValueError, match="Expected a branch and a shortcut"):
        AttentionMaskedResidual()([ops.zeros(shape) for shape in shapes])
