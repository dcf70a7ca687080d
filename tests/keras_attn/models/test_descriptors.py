import keras
import pytest

from keras_attn.models.descriptors import FIRST_ORDER, POOLINGS, pool

LENGTHS = {
    **dict.fromkeys(FIRST_ORDER, 2048),
    "bilinear": 65_536,
    "compact_bilinear": 8192,
    "kernel": 1 + 256 + 3 * 4096,
    "mpn_cov": 32_896,
    "isqrt_cov": 32_896,
}


@pytest.mark.parametrize("name", POOLINGS)
def test_descriptors_have_the_published_lengths(name):
    inputs = keras.Input((14, 14, 2048))
    descriptor = pool(inputs, name)
    assert descriptor.shape == (None, LENGTHS[name])
    model = keras.Model(inputs, descriptor)
    assert isinstance(model.get_layer("pool"), POOLINGS[name])
    reduction = [layer for layer in model.layers if "reduction" in layer.name]
    assert len(reduction) == (0 if name in FIRST_ORDER else 3)


def test_the_reduction_can_be_chosen_penalised_or_left_out():
    inputs = keras.Input((None, 7, 5))
    model = keras.Model(inputs, pool(inputs, "bilinear", 3, weight_decay=0.1))
    assert model.output_shape == (None, 9)
    kernel = model.get_layer("reduction").kernel
    assert kernel.shape == (1, 1, 5, 3)
    penalty = 0.1 * keras.ops.sum(keras.ops.square(kernel))
    assert float(model.losses[0]) == pytest.approx(float(penalty), rel=1e-5)
    assert pool(inputs, "bilinear", None).shape == (None, 25)


def test_an_unknown_name_is_told_the_nearest():
    with pytest.raises(ValueError, match="'isqrt'.*Did you mean 'isqrt_cov'"):
        pool(keras.Input((7, 7, 4)), "isqrt")
