import keras
import numpy as np
import pytest

from keras_attn.layers.spatial_transformer import SpatialTransformer
from tests.harness import check_layer, example, run, to_numpy
from tests.reference import deformations as reference

ARGUMENTS = {"channels": 5, "units": 3, "kernel_regularizer": "l2"}
# Three images, as the harness takes one and three: JAX compiles for every shape.
SHAPE = (3, 7, 5, 2)
AFFINE = [0.8, -0.3, 0.2, 0.4, 1.3, -0.1]


def transformed(inputs, parameters):
    layer = SpatialTransformer(4, 3)
    layer.build(inputs.shape)
    layer.affine.bias.assign(parameters)
    return run(layer, inputs)


def test_keeps_the_promises_of_a_layer():
    check_layer(
        SpatialTransformer,
        ARGUMENTS,
        SHAPE,
        float32_outputs=("fields",),
        expected_num_trainable_weights=6,
        expected_num_losses=3,
    )


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_new_layer_is_exactly_the_identity(policy):
    inputs = example(SHAPE)
    outputs = run(SpatialTransformer(dtype=policy), inputs)
    rounded = keras.ops.cast(inputs, "bfloat16" if "mixed" in policy else "float32")
    np.testing.assert_array_equal(outputs["features"], to_numpy(rounded))
    np.testing.assert_array_equal(outputs["fields"], 0.0)


def test_equals_the_numpy_version():
    inputs = example(SHAPE)
    places = reference.affine_places(AFFINE, 7, 5)
    outputs = transformed(inputs, AFFINE)
    wanted = [reference.read_at(image, places) for image in to_numpy(inputs)]
    np.testing.assert_allclose(outputs["features"], wanted, atol=1e-5)
    field = outputs["fields"][:, :, :, 0] + reference.cells(7, 5)
    np.testing.assert_allclose(field, [places] * 3, atol=1e-5)


def test_equals_pytorch():
    torch = pytest.importorskip("torch")
    inputs = example(SHAPE)
    grid = torch.nn.functional.affine_grid(
        torch.tensor([AFFINE] * 3).reshape(3, 2, 3), (3, 2, 7, 5), True
    )
    wanted = torch.nn.functional.grid_sample(
        torch.tensor(to_numpy(inputs)).permute(0, 3, 1, 2),
        grid,
        mode="bilinear",
        padding_mode="zeros",
        align_corners=True,
    )
    wanted = wanted.permute(0, 2, 3, 1).numpy()
    found = transformed(inputs, AFFINE)["features"]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_each_image_has_a_map_of_its_own():
    inputs = example(SHAPE)
    layer = SpatialTransformer(4, 16)
    layer.build(inputs.shape)
    layer.affine.kernel.assign(np.full((16, 6), 0.1))
    fields = run(layer, inputs)["fields"]
    assert np.abs(fields[0] - fields[1]).max() > 1e-3


def test_counts_what_it_multiplies():
    layer = SpatialTransformer(channels=5, units=3)
    dense = 21 * 11 * 5 + 21 * 5 * 3 + 3 * 6
    assert layer.multiply_adds((None, 7, 3, 11)) == dense + 4 * 21 * 11
    assert layer.window_steps() is None


@pytest.mark.parametrize("shape", [(None, None, 3, 5), (None, 7, None, 5)])
def test_refuses_a_map_of_unknown_size(shape):
    with pytest.raises(ValueError, match="known height and width.*Received"):
        SpatialTransformer().build(shape)


def test_refuses_a_map_of_another_size():
    layer = SpatialTransformer()
    layer.build((None, 7, 3, 5))
    with pytest.raises(ValueError, match="expected shape"):
        layer(example((2, 3, 7, 5)))


@pytest.mark.parametrize("name", ["channels", "units"])
def test_refuses_bad_widths(name):
    with pytest.raises(ValueError, match=f"Expected `{name}`.*Received: {name}=0"):
        SpatialTransformer(**{name: 0})
