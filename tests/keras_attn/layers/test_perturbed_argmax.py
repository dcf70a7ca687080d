import keras
import numpy as np
import pytest

from keras_attn.layers.perturbed_argmax import PerturbedArgmax
from keras_attn.ops.soft_maximizers import perturbed_argmax
from tests.harness import check_layer, to_numpy

ARGUMENTS = {
    "margin": 0.3,
    "inverse_temperature": 1.3,
    "samples": 7,
    "scale": 17.0,
    "axis": 1,
    "chunk_size": 9,
    "control_variate": True,
    "seed": 5,
}


def test_layer():
    check_layer(
        PerturbedArgmax,
        ARGUMENTS,
        (2, 5, 7, 3),
        other_shapes=[(3, 11)],
        stochastic=True,
        expected_num_trainable_weights=0,
        expected_num_seed_generators=1,
        supports_masking=True,
    )


def test_layer_with_defaults_in_a_model_of_any_batch_size():
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, PerturbedArgmax(margin=0.0)(inputs))
    for shape in [(1, 5, 3), (7, 2, 3)]:
        sums = to_numpy(model(np.zeros(shape, "float32"))).sum(axis=-1)
        assert sums.shape == shape[:-1]
        np.testing.assert_allclose(sums, 0.75, atol=0.1)


def test_output_is_the_scaled_perturbed_argmax():
    activations = np.random.default_rng(0).normal(0, 1, (2, 5, 3)).astype("float32")
    names = ["margin", "inverse_temperature", "samples", "axis", "chunk_size", "seed"]
    expected = perturbed_argmax(activations, **{key: ARGUMENTS[key] for key in names})
    output = PerturbedArgmax(**ARGUMENTS)(activations)
    np.testing.assert_allclose(to_numpy(output), 17 * to_numpy(expected), rtol=1e-6)


def test_every_call_draws_new_noise_and_the_seed_fixes_it():
    activations = np.zeros((5, 7), "float32")
    layers = [PerturbedArgmax(0.0, samples=9, seed=seed) for seed in (3, 3, 4)]
    first, same, other = [
        [to_numpy(layer(activations, training=False)) for _ in range(3)]
        for layer in layers
    ]
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)
    for earlier, later in [(0, 1), (0, 2), (1, 2)]:
        assert not np.array_equal(first[earlier], first[later])


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("inverse_temperature", 0.0),
        ("scale", -1),
        ("samples", 0),
        ("samples", 2.5),
        ("chunk_size", 0),
    ],
)
def test_bad_arguments(argument, value):
    with pytest.raises(ValueError, match=f"Expected `{argument}` .* {argument}="):
        PerturbedArgmax(**{argument: value})
