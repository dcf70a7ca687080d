"""The sizes of the authors' network, and what its evidence means."""

import math

import keras
import numpy as np
import pytest

from keras_attn.graph.costs import multiply_adds, trainable_params
from keras_attn.models.anchornet95 import anchornet95
from tests.harness import randomize, to_numpy, unweighted

# The expansion that the authors' first block creates and never uses: a 1x1
# convolution from 16 to 16 channels, and scale and offset of its normalisation.
NEVER_USED = 16 * 16 + 2 * 16


def images(height, width, batch=2):
    generator = np.random.default_rng(5)
    return generator.normal(size=(batch, height, width, 3)).astype("float32")


@unweighted()
def test_parameters_and_multiply_adds_are_the_authors():
    model = anchornet95()
    assert trainable_params(model) + NEVER_USED == 674_984
    assert trainable_params(model) == 674_696
    every_cell = 17 * 17 * (512 + 1) * 1000
    total = multiply_adds(model) - every_cell + 512 * 1000
    assert round(total / 1e9, 4) == 0.0605
    assert model.output["evidence_95"].shape == (None, 17, 17, 1000)


@unweighted()
def test_folded_has_the_same_map_for_less():
    model = anchornet95(folded=True)
    assert model.output["evidence_95"].shape == (None, 17, 17, 1000)
    assert round(multiply_adds(model) / 1e9, 3) == 0.074


@pytest.mark.parametrize(
    "size, cells", [((95, 95), (1, 1)), ((102, 103), (1, 2)), ((224, 111), (17, 3))]
)
@unweighted()
def test_map_sizes(size, cells):
    model = anchornet95(num_classes=3, input_shape=(*size, 3))
    assert model.output["evidence_95"].shape[1:3] == cells


def test_a_cell_sees_its_window_and_no_other_pixel():
    """With squeeze-excitation, which is global, switched to a constant."""
    model = anchornet95(num_classes=2, input_shape=(111, 119, 3))
    randomize(model)
    for layer in model.layers:
        if layer.name.startswith("block"):
            excite = layer.squeeze_excitation.excite
            excite.kernel.assign(0 * excite.kernel)
    i, j = 1, 2
    first_row, last_row = 8 * i, 8 * i + 94
    first_column, last_column = 8 * j, 8 * j + 94
    changed = np.repeat(images(111, 119, batch=1), 9, axis=0)
    for k, row in enumerate([first_row, last_row, first_row - 1, last_row + 1]):
        changed[1 + k, row] += 9
    columns = [first_column, last_column, first_column - 1, last_column + 1]
    for k, column in enumerate(columns):
        changed[5 + k, :, column] += 9
    cells = model.predict_on_batch(changed)["evidence_95"][:, i, j, 0]
    moved = np.abs(cells[1:] / cells[0] - 1) > 1e-5
    np.testing.assert_array_equal(moved, 2 * [True, True, False, False])


def test_evidence_is_the_class_activation_map_and_sums_to_the_logits():
    model = anchornet95(num_classes=5, input_shape=(103, 111, 3))
    randomize(model)
    features = model.get_layer("features").output
    everything = keras.Model(model.input, {**model.output, "features": features})
    outputs = everything.predict_on_batch(images(103, 111))
    features = outputs["features"]
    kernel, bias = (to_numpy(w) for w in model.get_layer("evidence_95").weights)
    # The dense layer on the average, and the authors' mean over channels.
    pooled = features.mean(axis=(1, 2)) @ kernel + bias
    activation_map = (features[..., None] * kernel).mean(axis=3)
    scale = np.abs(pooled).max()
    for logits in (
        outputs["logits_95"],
        outputs["evidence_95"].sum(axis=(1, 2)),
        activation_map.mean(axis=(1, 2)) * 512 + bias,
    ):
        np.testing.assert_allclose(logits / scale, pooled / scale, atol=1e-5)
    np.testing.assert_array_equal(outputs["logits"], outputs["logits_95"])
    cells = math.prod(activation_map.shape[1:3])
    np.testing.assert_allclose(
        outputs["evidence_95"] / scale,
        (activation_map * 512 + bias) / cells / scale,
        atol=1e-5,
    )


def test_any_size_and_the_same_after_saving(tmp_path):
    model = anchornet95(num_classes=3, input_shape=(None, None, 3))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    wanted = model.predict_on_batch(images(103, 97, batch=1))
    found = loaded.predict_on_batch(images(103, 97, batch=1))
    assert wanted["evidence_95"].shape == (1, 2, 1, 3)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, atol=1e-6)


def test_builds_on_the_callers_tensor_and_penalises_every_kernel():
    raw = keras.Input((95, 95, 3), name="raw")
    scaled = keras.layers.Rescaling(1 / 255)(raw)
    model = anchornet95(num_classes=3, input_tensor=scaled, weight_decay=0.5)
    assert model.input.name == "raw"
    kernels = [w for w in model.trainable_weights if w.path.endswith("kernel")]
    squares = sum(np.sum(to_numpy(weight) ** 2) for weight in kernels)
    penalty = sum(to_numpy(loss) for loss in model.losses)
    np.testing.assert_allclose(penalty, 0.5 * squares, rtol=1e-4)


@pytest.mark.parametrize(
    "shape, message",
    [
        ((94, 224, 3), "at least 95 x 95"),
        ((224, 80, 3), "at least 95 x 95"),
        ((224, 224, 1), "3 channels"),
        ((224, 224, 4), "3 channels"),
    ],
)
def test_refuses_images_that_it_cannot_see(shape, message):
    with pytest.raises(ValueError, match=message):
        anchornet95(input_shape=shape)
