import numpy as np
import pytest

from keras_attn.layers import ValidBottleneck
from tests.harness import check_layer, example, randomize, run, to_numpy
from tests.reference.anchornet import bottleneck

ARGUMENTS = {
    "filters": 4,
    "expansion": 6,
    "kernel_size": 2,
    "strides": 2,
    "squeeze_units": 3,
    "activation": "gelu",
    "squeeze_activation": "gelu",
    "gate_activation": "sigmoid",
    "shortcut": "centre",
    "kernel_regularizer": "l2",
}


def test_keeps_the_promises_of_a_layer():
    check_layer(
        ValidBottleneck,
        ARGUMENTS,
        (2, 7, 5, 3),
        other_shapes=[(1, 2, 3, 6)],
        expected_num_losses=5,
        tolerance=1e-4,
    )


def reference(layer, inputs):
    def normalization(sublayer):
        return [to_numpy(weight) for weight in sublayer.weights]

    def dense(sublayer):
        return [to_numpy(weight) for weight in sublayer.weights]

    gate = layer.squeeze_excitation
    weights = {
        "expand": None,
        "depthwise": to_numpy(layer.depthwise.kernel)[..., 0],
        "depthwise_normalization": normalization(layer.depthwise_normalization),
        "squeeze": gate and dense(gate.squeeze),
        "excite": gate and dense(gate.excite),
        "project": to_numpy(layer.project.kernel)[0, 0],
        "project_normalization": normalization(layer.project_normalization),
    }
    if layer.expand is not None:
        weights["expand"] = to_numpy(layer.expand.kernel)[0, 0]
        weights["expand_normalization"] = normalization(layer.expand_normalization)
    return np.stack(
        [
            bottleneck(image, weights, layer.strides, layer.shortcut)
            for image in to_numpy(inputs)
        ]
    )


@pytest.mark.parametrize(
    "options",
    [
        {"filters": 4, "expansion": 8, "squeeze_units": 2},
        {"filters": 4, "expansion": 8, "kernel_size": 5, "shortcut": "centre"},
        {"filters": 4, "expansion": 8, "kernel_size": 5, "shortcut": "top_left"},
        {"filters": 4, "expansion": 4, "kernel_size": 1},
        {"filters": 7, "expansion": 4, "strides": 2, "squeeze_units": 1},
    ],
)
def test_equals_the_numpy_version(options):
    layer = ValidBottleneck(**options)
    inputs = example((2, 8, 7, 4))
    layer(inputs)
    randomize(layer)
    np.testing.assert_allclose(run(layer, inputs), reference(layer, inputs), atol=1e-4)


def test_expansion_to_the_same_width_is_left_out():
    layer = ValidBottleneck(16, expansion=16)
    layer.build((None, 9, 9, 16))
    assert layer.expand is None
    # Depthwise 3x3 and projection, with scale and offset of two normalisations.
    wanted = 9 * 16 + 2 * 16 + 16 * 16 + 2 * 16
    assert sum(weight.numpy().size for weight in layer.trainable_weights) == wanted


def test_a_map_smaller_than_the_kernel_is_refused():
    layer = ValidBottleneck(4, expansion=8, kernel_size=5, name="narrow")
    with pytest.raises(ValueError, match="at least 5 x 5 cells.*narrow"):
        layer.compute_output_shape((None, 8, 4, 3))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"filters": 0}, "filters"),
        ({"expansion": 1.5}, "expansion"),
        ({"kernel_size": 0}, "kernel_size"),
        ({"strides": -1}, "strides"),
        ({"shortcut": "left"}, "shortcut"),
    ],
)
def test_refuses_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=f"Expected `{message}`"):
        ValidBottleneck(**{"filters": 3, "expansion": 6, **options})


def test_frozen_normalization_keeps_its_statistics_in_training():
    layer = ValidBottleneck(4, expansion=8, squeeze_units=2)
    inputs = example((2, 8, 7, 4))
    layer(inputs)
    randomize(layer)
    wanted = run(layer, inputs)
    layer.trainable = False
    np.testing.assert_allclose(to_numpy(layer(inputs, training=True)), wanted, 1e-6)
    layer.trainable = True
    assert np.abs(to_numpy(layer(inputs, training=True)) - wanted).max() > 0.1
