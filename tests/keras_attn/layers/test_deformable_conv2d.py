import keras
import numpy as np
import pytest
from keras import ops

from keras_attn.graph.window_steps import WindowStep, steps_of
from keras_attn.layers.deformable_conv2d import DeformableConv2D
from tests.harness import (
    check_layer,
    check_mixed_precision,
    example,
    gradients,
    to_numpy,
)
from tests.keras_attn.compiling import compiled
from tests.reference import deformations as reference

ARGUMENTS = {
    "filters": 4,
    "kernel_size": (3, 2),
    "strides": (2, 1),
    "padding": "same",
    "activation": "tanh",
    "use_bias": False,
    "kernel_initializer": "he_normal",
    "bias_initializer": "ones",
    "kernel_regularizer": "l2",
    "bias_regularizer": "l1",
}
# Three images, as the harness takes one and three: JAX compiles for every shape.
SHAPE = (3, 7, 5, 2)
VARIANTS = [
    {"kernel_size": (3, 2), "strides": (2, 1), "padding": "same"},
    {"kernel_size": (2, 4), "strides": 2, "padding": "valid"},
    {"kernel_size": (3, 2), "dilation_rate": (2, 3), "padding": "same"},
]


def test_keeps_the_promises_of_a_layer():
    if keras.backend.backend() == "jax":
        # All of it takes long on JAX; what Keras's convolution does not share is below.
        check_mixed_precision(DeformableConv2D, ARGUMENTS, SHAPE)
        return
    check_layer(
        DeformableConv2D,
        ARGUMENTS,
        SHAPE,
        keeps_default=("dilation_rate",),  # strides above 1 exclude it
        expected_num_trainable_weights=3,
        expected_num_losses=3,
    )


def evaluate(layer, inputs):
    return to_numpy(compiled(lambda x: layer(x))(inputs))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_new_layer_is_the_plain_convolution(variant):
    inputs = example(SHAPE)
    plain = keras.layers.Conv2D(4, bias_initializer="ones", **variant)
    layer = DeformableConv2D(4, **variant)
    wanted = to_numpy(plain(inputs))
    layer.build(SHAPE)
    layer.kernel.assign(plain.kernel)
    layer.bias.assign(plain.bias)
    np.testing.assert_allclose(evaluate(layer, inputs), wanted, atol=1e-5)
    np.testing.assert_array_equal(to_numpy(layer.sampling_offsets(inputs)), 0.0)


def with_random_offsets(variant, scale=1.0):
    layer = DeformableConv2D(4, **variant)
    layer.build(SHAPE)
    generator = np.random.default_rng(8)
    for weight in (layer.offsets.kernel, layer.offsets.bias):
        weight.assign(generator.normal(scale=scale, size=weight.shape))
    return layer


@pytest.mark.parametrize("variant", VARIANTS)
def test_random_offsets_equal_the_numpy_version(variant):
    inputs = example(SHAPE)
    layer = with_random_offsets(variant)
    offsets = to_numpy(layer.sampling_offsets(inputs)).astype(float)
    kernel = to_numpy(layer.kernel).astype(float)
    rows, columns = offsets.shape[1:3]
    before = (0, 0)
    if variant["padding"] == "same":
        spans = [
            (outputs - 1) * stride + (size - 1) * dilation + 1
            for outputs, stride, size, dilation in zip(
                (rows, columns),
                layer.strides,
                layer.kernel_size,
                layer.dilation_rate,
                strict=True,
            )
        ]
        before = [
            max(span - size, 0) // 2 for span, size in zip(spans, (7, 5), strict=True)
        ]
    wanted = [
        reference.deformable_conv2d(
            image, moved, kernel, layer.strides, before, layer.dilation_rate
        )
        for image, moved in zip(to_numpy(inputs), offsets, strict=True)
    ]
    assert np.abs(offsets).max() > 5  # some taps are far outside
    np.testing.assert_allclose(evaluate(layer, inputs), wanted, atol=1e-4)


def test_random_offsets_equal_torchvision():
    torch = pytest.importorskip("torch")
    try:
        from torchvision.ops import deform_conv2d
    except (ImportError, RuntimeError) as reason:
        pytest.skip(f"no compiled operations of torchvision: {reason}")
    inputs = example(SHAPE)
    layer = with_random_offsets({"kernel_size": 3, "padding": "same"})
    tensors = [
        torch.tensor(to_numpy(tensor))
        for tensor in (inputs, layer.offsets(inputs), layer.kernel)
    ]
    images, offsets = (tensor.permute(0, 3, 1, 2) for tensor in tensors[:2])
    kernel = tensors[2].permute(3, 2, 0, 1)
    wanted = deform_conv2d(images, offsets, kernel, padding=1)
    np.testing.assert_allclose(
        evaluate(layer, inputs), wanted.permute(0, 2, 3, 1).numpy(), atol=1e-4
    )


def test_an_offset_of_one_cell_reads_the_neighbour():
    layer = DeformableConv2D(1, 1, use_bias=False, kernel_initializer="ones")
    inputs = np.arange(12, dtype="float32").reshape((1, 3, 4, 1))
    layer.build(inputs.shape)
    layer.offsets.bias.assign([1.0, 2.0])  # one row down, two columns right
    wanted = np.zeros((1, 3, 4, 1))
    wanted[:, :2, :2] = inputs[:, 1:, 2:]
    np.testing.assert_allclose(evaluate(layer, inputs), wanted, atol=1e-6)


def test_the_offsets_of_a_new_layer_are_learned():
    inputs = to_numpy(example(SHAPE))
    layer = DeformableConv2D(4, 3, padding="same")
    layer.build(SHAPE)
    values = [to_numpy(weight) for weight in layer.trainable_variables]

    def loss(*weights):
        outputs, _ = layer.stateless_call(list(weights), [], inputs)
        return ops.sum(ops.square(outputs))

    found = dict(
        zip(
            [weight.path.split("/", 1)[1] for weight in layer.trainable_variables],
            gradients(compiled(loss), *values),
            strict=True,
        )
    )
    assert np.abs(found["offsets/kernel"]).max() > 1e-2


def test_counts_what_it_multiplies():
    layer = DeformableConv2D(4, 3, padding="same")
    layer.build(SHAPE)
    plain, offsets, sampling = 35 * 18 * 4, 35 * 18 * 18, 35 * 18 * 4
    assert layer.multiply_adds((None, *SHAPE[1:])) == plain + offsets + sampling


def test_tells_the_window_of_the_plain_convolution():
    layer = DeformableConv2D(4, (3, 2), strides=(2, 1), padding="same")
    plain = WindowStep((3, 2), (2, 1), padding="same")
    assert steps_of(layer) == [None, plain]


@pytest.mark.parametrize("argument", [{"groups": 2}, {"data_format": "channels_first"}])
def test_refuses_groups_and_channels_first(argument):
    with pytest.raises(ValueError, match="channels_last.*Received"):
        DeformableConv2D(4, **argument)
