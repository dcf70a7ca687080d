import keras
import numpy as np
import pytest
from keras import tree

from keras_attn.layers.saliency_sampler import SaliencySampler
from tests.harness import check_layer, example, to_numpy
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
        SaliencySampler,
        {"fwhm": (2.5, 1.5), "padding": 4, "kernel_regularizer": "l2"},
        SHAPE,
        other_shapes=[(1, 1, 2, 3)],
        float32_outputs=("fields",),
        expected_num_trainable_weights=2,
        expected_num_losses=1,
    )


def test_equals_the_numpy_version():
    inputs = example(SHAPE)
    layer = SaliencySampler()
    layer.build(SHAPE)
    outputs = evaluate(layer, inputs)
    kernel = to_numpy(layer.respond.kernel)
    for index, image in enumerate(to_numpy(inputs)):
        weights = np.exp((np.maximum(image, 0) @ kernel)[..., 0])
        places = reference.saliency_places(
            weights / weights.sum(), (7 * 13 / 31, 5 * 13 / 31), (6, 4)
        )
        found = outputs["fields"][index, :, :, 0] + reference.cells(7, 5)
        np.testing.assert_allclose(found, places, atol=1e-5)
        wanted = reference.read_at(image, places)
        np.testing.assert_allclose(outputs["features"][index], wanted, atol=1e-4)


def test_uniform_saliency_copies_the_map():
    inputs = example(SHAPE)
    layer = SaliencySampler()
    layer.build(SHAPE)
    layer.respond.kernel.assign(np.zeros((2, 1)))
    np.testing.assert_allclose(
        evaluate(layer, inputs)["features"], to_numpy(inputs), atol=1e-5
    )
    np.testing.assert_allclose(to_numpy(layer.saliency(inputs)), 1 / 35, rtol=1e-6)


def test_an_overwhelming_cell_leaves_everything_finite():
    inputs = np.zeros(SHAPE, "float32")
    inputs[:, 2, 1] = 1e4
    layer = SaliencySampler()
    layer.build(SHAPE)
    layer.respond.kernel.assign(np.ones((2, 1)))
    outputs = evaluate(layer, inputs)
    assert all(np.all(np.isfinite(output)) for output in outputs.values())


def test_counts_what_it_multiplies():
    # 1x1 convolution, five products with matrices of 7 x 7 or 3 x 3, the sampling.
    sums = 2 * 7 * 3 * 3 + 3 * 7 * 7 * 3
    counted = SaliencySampler().multiply_adds((None, 7, 3, 11))
    assert counted == 21 * 11 + sums + 4 * 21 * 11
    assert SaliencySampler().window_steps() is None


def test_refuses_bad_arguments():
    with pytest.raises(ValueError, match="Expected `fwhm`.*Received: fwhm=0"):
        SaliencySampler(fwhm=0)
    with pytest.raises(ValueError, match="Expected `padding`.*Received: padding=0"):
        SaliencySampler(padding=0)
