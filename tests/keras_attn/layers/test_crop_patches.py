import keras
import numpy as np
import pytest

from keras_attn.layers.crop_patches import CropPatches
from tests.harness import check_layer, to_numpy
from tests.reference import patches as reference


def test_keeps_the_promises_of_a_layer():
    check_layer(
        CropPatches,
        {"size": (3, 5)},
        [(2, 11, 13, 3), (2, 7, 4)],
        other_shapes=[[(1, 2, 3, 1), (1, 1, 4)]],
        differentiable=False,  # boxes are integers
    )


def model_of(size, shape, boxes, dtype):
    images = keras.Input(shape, dtype=dtype)
    corners = keras.Input((boxes, 4), dtype="int32")
    return keras.Model([images, corners], CropPatches(size)([images, corners]))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("size", [6, (4, 7)])
def test_model_for_images_of_any_size_equals_slicing(size, dtype):
    random = np.random.default_rng(0)
    model = model_of(size, (None, None, 3), 2, dtype)
    rows, columns = (size, size) if isinstance(size, int) else size
    assert model.output.dtype == dtype
    assert model.output.shape == (None, 2, rows, columns, 3)
    for height, width in ((13, 17), (19, 11)):
        images = random.integers(0, 256, (3, height, width, 3)).astype(dtype)
        corner = random.integers(-3, 16, (3, 2, 2))
        boxes = np.concatenate([corner, corner + [rows, columns]], axis=-1)
        boxes[1, 1] = -1
        found = to_numpy(model([images, boxes.astype("int32")]))
        for index in np.ndindex(3, 2):
            wanted = reference.crop(images[index[0]], boxes[index], (rows, columns))
            np.testing.assert_array_equal(found[index], wanted)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a SavedModel")
def test_saved_model_crops_integer_boxes(tmp_path):
    import tensorflow as tf

    model = model_of(5, (11, 13, 3), 2, "uint8")
    model.export(tmp_path, verbose=False)
    served = tf.saved_model.load(tmp_path)
    compiled = tf.function(lambda *inputs: served.serve(list(inputs)), jit_compile=True)
    random = np.random.default_rng(1)
    for batch in (1, 4):
        images = random.integers(0, 256, (batch, 11, 13, 3)).astype("uint8")
        corner = random.integers(0, 6, (batch, 2, 2))
        boxes = np.concatenate([corner, corner + 5], axis=-1).astype("int32")
        wanted = to_numpy(model([images, boxes]))
        np.testing.assert_array_equal(to_numpy(served.serve([images, boxes])), wanted)
        np.testing.assert_array_equal(to_numpy(compiled(images, boxes)), wanted)


@pytest.mark.parametrize("size", [0, 1.5, (3, -1), (1, 2, 3)])
def test_refuses_wrong_sizes(size):
    with pytest.raises(ValueError, match="`size` to be a positive integer"):
        CropPatches(size)
