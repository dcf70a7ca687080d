import keras
import numpy as np
import pytest
from keras import ops, tree

from keras_attn.layers.attention_sampler import AttentionSampler
from tests.harness import check_layer, example, gradients, to_numpy
from tests.keras_attn.compiling import compiled
from tests.reference import deformations as reference

SHAPE = (3, 7, 5, 2)


def evaluate(layer, inputs):
    return tree.map_structure(to_numpy, compiled(lambda x: layer(x))(inputs))


@pytest.mark.skipif(
    keras.backend.backend() == "jax",
    reason="Takes long on JAX, where SpatialTransformer stands for it: the same layer "
    "but for the field, which the next test and those of the field cover.",
)
def test_keeps_the_promises_of_a_layer():
    check_layer(
        AttentionSampler,
        {"scale": 2.0},
        SHAPE,
        other_shapes=[(1, 1, 2, 3)],
        float32_outputs=("fields",),
        expected_num_trainable_weights=0,
        expected_num_losses=0,
    )


def test_equals_the_numpy_version():
    inputs = ops.relu(example(SHAPE))
    outputs = evaluate(AttentionSampler(), inputs)
    for index, image in enumerate(to_numpy(inputs)):
        attention = reference.trilinear_attention(image, 7.0).sum(axis=-1)
        places = reference.attention_places(attention)
        found = outputs["fields"][index, :, :, 0] + reference.cells(7, 5)
        np.testing.assert_allclose(found, places, atol=1e-4)
        wanted = reference.read_at(image, places)
        np.testing.assert_allclose(outputs["features"][index], wanted, atol=1e-3)


def test_the_field_is_detached():
    inputs = to_numpy(ops.relu(example(SHAPE)))
    layer = AttentionSampler()

    def value(maps):
        return ops.sum(layer.field(maps) ** 2) + ops.sum(maps)

    (gradient,) = gradients(compiled(value), inputs)
    np.testing.assert_array_equal(gradient, 1.0)


def test_a_map_of_zeros_stays_zero():
    outputs = evaluate(AttentionSampler(), np.zeros(SHAPE, "float32"))
    np.testing.assert_array_equal(outputs["features"], 0.0)
    assert np.all(np.isfinite(outputs["fields"]))


def test_counts_what_it_multiplies():
    counted = AttentionSampler().multiply_adds((None, 7, 3, 11))
    assert counted == 21 * 11**2 + 21 * 11 + 4 * 21 * 11
    assert AttentionSampler().window_steps() is None


@pytest.mark.parametrize("scale", [0, -1.0, True, "7", float("inf")])
def test_refuses_a_bad_scale(scale):
    with pytest.raises(ValueError, match="Expected `scale`.*Received: scale="):
        AttentionSampler(scale=scale)
