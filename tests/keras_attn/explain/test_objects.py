"""TokenCut and LOST against SciPy and plain loops."""

import keras
import numpy as np
import pytest
from scipy import linalg, ndimage

from keras_attn.explain import boxes_of_masks, lost, patch_features, token_cut
from keras_attn.metrics import corloc
from keras_attn.models import vit
from tests.harness import to_numpy

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def features():
    """Patches of a background, and of an object in the lower right corner."""
    ground, thing = RANDOM.standard_normal((2, 8))
    features = np.tile(ground, (3, 6, 7, 1))
    features[:, 3:, 4:] = thing
    return features + 0.5 * RANDOM.standard_normal(features.shape)


def component(mask, seed):
    labels, _ = ndimage.label(mask)
    return labels == labels.flat[seed]


def test_token_cut(features):
    found = token_cut(features)
    for mask, image in zip(found, features.reshape(3, 42, 8), strict=True):
        unit = image / np.linalg.norm(image, axis=1, keepdims=True)
        edges = np.where(unit @ unit.T > 0.2, 1, 1e-5)
        degrees = np.diag(edges.sum(axis=1))
        vector = linalg.eigh(degrees - edges, degrees)[1][:, 1]
        seed = np.argmax(np.abs(vector))
        side = vector > vector.mean()
        wanted = component((side == side[seed]).reshape(6, 7), seed)
        np.testing.assert_array_equal(mask, wanted)
    boxes = boxes_of_masks(found, (60, 70))
    assert corloc(boxes, np.tile([30, 40, 60, 70], (3, 1))) == 1


@pytest.mark.parametrize("similar", [5, 100])
def test_lost(features, similar):
    for mask, image in zip(lost(features, similar), features, strict=True):
        flat = image.reshape(42, 8)
        degrees = [sum(a @ b > 0 for b in flat) for a in flat]
        order = sorted(range(42), key=lambda patch: degrees[patch])
        seed = order[0]
        near = [patch for patch in order[:similar] if flat[seed] @ flat[patch] > 0]
        grown = [sum(flat[other] @ patch for other in near) > 0 for patch in flat]
        wanted = component(np.reshape(grown, (6, 7)), seed)
        np.testing.assert_array_equal(mask, wanted)
        assert mask[4, 5] != mask[0, 0]


def test_features_of_patches():
    model = vit((6, 2, 2), 4, (8, 12, 3))
    images = RANDOM.standard_normal((2, 8, 12, 3)).astype("float32")
    block = keras.Model(model.input, model.get_layer("block_2").output)
    found = patch_features(model, images, "block_2", output="embedding")
    wanted = to_numpy(block(images))[:, 1:].reshape(2, 2, 3, 6)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert patch_features(model, images, output="tokens").shape == (2, 2, 3, 6)


def test_boxes():
    masks = np.zeros((2, 3, 4), bool)
    masks[0, 1, 1:3] = True
    found = boxes_of_masks(masks, (30, 80))
    np.testing.assert_array_equal(found, [[10, 20, 20, 60], [-1, -1, -1, -1]])
    true = np.array([[[10, 20, 20, 50], [-1, -1, -1, -1]], [[0, 0, 5, 5]] * 2])
    assert corloc(found, true) == 0.5
    assert corloc(found, true, threshold=0.9) == 0
