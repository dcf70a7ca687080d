import numpy as np
import pytest

from keras_attn.layers import AttentionMap
from tests.harness import check_layer, example, to_numpy

SHAPES = [(2, 5, 1 + 2 * 3), (2, 2, 3, 1)]
ARGUMENTS = {
    "aggregate": "max",
    "normalize": "scale",
    "factor": (3, 2),
    "interpolation": "bilinear",
    "heads": [3, 1],
}


def test_keeps_the_promises_of_a_layer():
    check_layer(
        AttentionMap,
        ARGUMENTS,
        SHAPES,
        differentiable=False,
    )


def test_puts_tokens_where_their_patches_are():
    attention, patches = (to_numpy(example(shape)) for shape in SHAPES)
    maps = to_numpy(AttentionMap()([attention, patches]))
    for row in range(2):
        for column in range(3):
            wanted = attention[:, :, 1 + 3 * row + column]
            np.testing.assert_array_equal(maps[:, row, column], wanted)


def test_takes_some_heads():
    attention, patches = (to_numpy(example(shape)) for shape in SHAPES)
    maps = to_numpy(AttentionMap(heads=[4, 0])([attention, patches]))
    wanted = attention[:, [4, 0], 1:].reshape(2, 2, 2, 3)
    np.testing.assert_array_equal(np.moveaxis(maps, -1, 1), wanted)
    # As files and caches of earlier models have it.
    assert "heads" not in AttentionMap().get_config()


def test_aggregates_normalises_and_enlarges_in_this_order():
    attention, patches = (to_numpy(example(shape)) for shape in SHAPES)
    maps = to_numpy(AttentionMap("mean", "minmax", 4)([attention, patches]))
    mean = attention[:, :, 1:].mean(axis=1)
    lowest = mean.min(axis=1, keepdims=True)
    wanted = (mean - lowest) / (mean.max(axis=1, keepdims=True) - lowest)
    wanted = np.kron(wanted.reshape(2, 2, 3), np.ones((1, 4, 4)))
    np.testing.assert_allclose(maps[..., 0], wanted, atol=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [{"aggregate": "median"}, {"normalize": "softmax"}, {"interpolation": "cubic"}],
)
def test_refuses_unknown_names(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"Expected `{name}`.*{arguments[name]}"):
        AttentionMap(**arguments)
    with pytest.raises(ValueError, match="Expected `factor`"):
        AttentionMap(factor=0)
