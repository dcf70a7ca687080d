"""Gradients of operations against central differences."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_attn.ops import (
    attention_maps,
    global_pooling,
    pooling,
    resize,
    sampling,
    second_moments,
    soft_maximizers,
)
from keras_attn.ops import sampling_grids as grids
from tests.harness import check_gradients, float64

MAP = (2, 5, 7, 6)
POSITIVE = 0.1 + np.random.default_rng(0).gamma(1.0, size=MAP)
TABLES = second_moments.hash_tables(2, 6, 11, seed=0)

CASES = {
    "affine_field": (lambda x: grids.affine_field(x, 5, 7), (2, 6)),
    "aggregate_heads": (attention_maps.aggregate_heads, MAP),
    "attention_field": (grids.attention_field, POSITIVE[..., 0]),
    "cross_dimensional_mean": (global_pooling.cross_dimensional_mean, POSITIVE),
    "generalized_mean": (
        global_pooling.generalized_mean,
        POSITIVE,
        np.linspace(1, 4, MAP[-1]),
    ),
    "l2_normalize": (global_pooling.l2_normalize, (3, 5)),
    "margin_softmax": (lambda x: soft_maximizers.margin_softmax(x, 0.5, 1.3), (3, 5)),
    "normalize_map": (attention_maps.normalize_map, MAP),
    "normalize_map scale": (lambda x: attention_maps.normalize_map(x, "scale"), MAP),
    "outer_product_sketch": (
        lambda x: second_moments.outer_product_sketch(x, *TABLES, 11),
        (2, 6, 6),
    ),
    "regional_maximum": (global_pooling.regional_maximum, POSITIVE),
    "resize_bicubic": (lambda x: resize.resize_bicubic(x, (9, 4)), MAP),
    "resize_bilinear": (lambda x: resize.resize_bilinear(x, (11, 13)), MAP),
    "resize_positions": (lambda x: resize.resize_positions(x, (3, 4), 0.1), MAP[1:]),
    "saliency_field": (lambda x: grids.saliency_field(x, 3.0), POSITIVE[..., 0]),
    "structure_map": (lambda x: grids.structure_map(x, 2.0), MAP),
    "signed_sqrt": (second_moments.signed_sqrt, (3, 5)),
    "tensor_sketch_means": (
        lambda x: second_moments.tensor_sketch_means(x, *TABLES, 11),
        MAP,
    ),
    "trilinear_attention": (lambda x: grids.trilinear_attention(x, 2.0), MAP),
    "upsample": (lambda x: resize.upsample(x, (2, 3), "bilinear"), MAP),
    "warp": (sampling.warp, MAP, (2, 5, 7, 3, 2)),
    "window_average": (lambda x: pooling.window_average(x, (3, None)), MAP),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_central_differences(name):
    if name == "outer_product_sketch" and keras.backend.backend() == "torch":
        pytest.skip("Keras sums segments in float32 on torch")
    check_gradients(CASES[name][0], *CASES[name][1:])


def test_wrong_and_missing_gradients_are_found():
    """`x` with half its gradient, and an input that has none."""

    def half(x):
        return 0.5 * x + 0.5 * ops.stop_gradient(x)

    with pytest.raises(AssertionError, match="Gradient of input 1"):
        check_gradients(lambda x, y: (x, half(y)), (3,), (2, 5))
    # JAX has zeros, not `None`, where nothing is connected.
    with pytest.raises(AssertionError, match="input 0"):
        check_gradients(lambda x: ops.stop_gradient(x) + 0 * x, (3,))


def test_float32_is_widened_and_restored():
    x = ops.convert_to_tensor(np.float32([1.0]))
    with float64():
        wide = ops.cast(x, "float32")
        assert keras.backend.standardize_dtype(wide.dtype) == "float64"
    assert keras.backend.standardize_dtype(ops.cast(x, "float32").dtype) == "float32"
