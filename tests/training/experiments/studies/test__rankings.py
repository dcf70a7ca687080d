"""Rankings of cells: the same number of patches of the same size, by other orders."""

import keras
import numpy as np
import pytest
from keras import layers
from scipy import ndimage

from keras_attn.layers import ClassEvidence
from keras_attn.training.experiments.studies import covered_area, rescaling
from keras_attn.training.experiments.studies._rankings import (
    RANKINGS,
    Selection,
    select,
    sobel,
)

HEIGHT, WIDTH = 20, 28
SIZES = (6, 10)
SETTINGS = {"max_patches": (4, 2), "iou_threshold": 0.3, "coverage": 1.0}


@pytest.fixture(scope="module")
def localizer():
    """Two branches of one convolution each, with patches of 6 and 10 pixels."""
    keras.utils.set_random_seed(3)
    images = keras.Input((HEIGHT, WIDTH, 3))
    outputs = {}
    for size in SIZES:
        x = layers.Conv2D(4, size, 2, name=f"window_{size}")(images)
        branch = ClassEvidence(3, name=f"evidence_{size}")(x)
        outputs |= {f"{kind}_{size}": tensor for kind, tensor in branch.items()}
    return keras.Model(images, {"logits": outputs["logits_6"], **outputs})


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(
        0, 256, (40, HEIGHT, WIDTH, 3), dtype="uint8"
    )


@pytest.fixture(scope="module")
def selections(localizer, images):
    return select(localizer, images, **SETTINGS)[0]


def test_all_rankings_choose_as_many_patches_of_the_same_size(selections):
    reference = selections["anchornet"]
    assert set(np.unique(reference.sizes)) == set(SIZES)
    for ranking in RANKINGS:
        selection = selections[ranking]
        np.testing.assert_array_equal(selection.sizes, reference.sizes)
        # The centre may leave room for fewer patches that overlap little.
        assert (selection.counts <= reference.counts).all()
        present = selection.boxes[selection.boxes[..., 0] >= 0]
        np.testing.assert_array_equal(
            present[:, 2:] - present[:, :2],
            np.repeat(selection.sizes, selection.counts)[:, None].repeat(2, axis=1),
        )
        assert (present[:, 0] % 2 == 0).all() and (present[:, 2] <= HEIGHT).all()


def test_the_first_patch_is_the_one_that_ranks_highest(localizer, images, selections):
    outputs = localizer.predict(images, verbose=0)
    grey = images @ np.array([0.2989, 0.587, 0.114]) / 255
    for i, size in enumerate(selections["centre"].sizes):
        rows, columns = (HEIGHT - size) // 2 + 1, (WIDTH - size) // 2 + 1
        corners = 2 * np.argwhere(np.ones((rows, columns)))
        label = outputs[f"logits_{size}"][i].argmax()
        gradient = np.hypot(
            ndimage.sobel(grey[i], 0, mode="mirror"),
            ndimage.sobel(grey[i], 1, mode="mirror"),
        )
        windows = [gradient[y : y + size, x : x + size] for y, x in corners]
        middle = corners + size / 2 - np.array([HEIGHT, WIDTH]) / 2
        wanted = {
            "anchornet": outputs[f"evidence_{size}"][i, ..., label].ravel(),
            "centre": -np.hypot(*middle.T),
            "sobel_mean": np.array([window.mean() for window in windows]),
            "sobel_variance": np.array([window.var() for window in windows]),
        }
        for ranking, values in wanted.items():
            first = tuple(selections[ranking].boxes[i, 0, :2])
            place = [tuple(corner) for corner in corners].index(first)
            assert values[place] >= values.max() - 1e-3, ranking


def test_gradients_are_scipys(images):
    grey = images @ np.array([0.2989, 0.587, 0.114]) / 255
    wanted = np.hypot(
        ndimage.sobel(grey[0], 0, mode="mirror"),
        ndimage.sobel(grey[0], 1, mode="mirror"),
    )
    np.testing.assert_allclose(sobel(images[:1])[0], wanted, atol=1e-3)


def test_a_random_ranking_depends_on_its_seed(localizer, images):
    first = select(localizer, images[:8], **SETTINGS, seed=1)[0]["random"].boxes
    again = select(localizer, images[:8], **SETTINGS, seed=1)[0]["random"].boxes
    other = select(localizer, images[:8], **SETTINGS, seed=2)[0]["random"].boxes
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def mean_colour_classifier():
    """Says which colour there is most of; its output is known without training."""
    images = keras.Input((None, None, 3))
    pooled = layers.GlobalAveragePooling2D()(images)
    return keras.Model(images, {"logits": layers.Identity(name="logits")(pooled)})


def test_curves_of_a_classifier_that_is_known():
    """Green squares on red: covered they decide the class, masked they are gone."""
    images = np.zeros((6, HEIGHT, WIDTH, 3), "uint8")
    images[..., 0] = 50
    images[:, 4:10, 8:14] = (0, 250, 0)
    boxes = np.array([[[4, 8, 10, 14], [10, 20, 16, 26]]] * 6)
    boxes[5, 1] = -1
    labels = np.ones(6, "int32")
    selection = Selection(boxes, np.full(6, 6))
    found = covered_area.curves(mean_colour_classifier(), images, labels, selection)
    assert found["covered_1_accuracy"] == 100.0
    assert found["masked_1_accuracy"] == 0.0
    assert found["area_1"] == pytest.approx(100 * 36 / (HEIGHT * WIDTH))
    # The second patch is red: its softmax adds as much as that of the first.
    assert found["area_2"] == pytest.approx(100 * (5 * 72 + 36) / (6 * HEIGHT * WIDTH))


def test_rescaling_keeps_a_constant_and_the_mean():
    constant = np.full((1, 16, 16, 3), 77, "uint8")
    np.testing.assert_array_equal(rescaling.rescaled(constant, 5), 77)
    smooth = np.linspace(0, 250, 16).astype("uint8")
    ramp = np.broadcast_to(smooth[None, :, None, None], (1, 16, 16, 3))
    reduced = rescaling.rescaled(np.ascontiguousarray(ramp), 8)
    wanted = smooth.reshape(8, 2).mean(axis=1)
    np.testing.assert_allclose(reduced[0, 1:-1, 0, 0], wanted[1:-1], atol=1.5)
