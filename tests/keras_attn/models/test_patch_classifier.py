import keras
import numpy as np
import pytest

from keras_attn.graph.costs import multiply_adds
from keras_attn.models.localizer import branches_of
from keras_attn.models.patch_classifier import cost_of, patch_classifier
from keras_attn.ops.rows import can_gather
from keras_attn.preprocessing import ImagePreprocessing, ImageSpec, spec_of
from tests.harness import to_numpy
from tests.keras_attn.counting import counted, small_classifier, small_localizer
from tests.reference.classify_patches import classify_patches, softmax

SELECTION = {"max_patches": (4, 3, 2), "iou_threshold": 0.05, "coverage": 0.3}
SIZES = [(7, 7), (11, 11), (15, 15)]


def random_images(count=8, seed=0):
    random = np.random.default_rng(seed)
    images = random.uniform(0, 255, (count, 29, 31, 3))
    return (images * random.uniform(0, 1, (count, 1, 1, 3))).astype("float32")


@pytest.fixture(scope="module")
def networks():
    return small_localizer(), small_classifier(seed=5)


@pytest.fixture(scope="module")
def model(networks):
    return patch_classifier(*networks, **SELECTION)


@pytest.fixture(scope="module")
def wanted(model):
    return predictions(model)


def predictions(model):
    return model.predict(random_images(), batch_size=4, verbose=0)


def same(outputs, wanted):
    assert set(outputs) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(
            np.asarray(outputs[name]), value, rtol=1e-4, atol=1e-4, err_msg=name
        )


def test_equals_one_patch_at_a_time(wanted, networks):
    localizer, classifier = networks
    images, outputs = random_images(), wanted
    assert len(set(outputs["branch"])) == 3

    def probabilities_of(patch):
        return softmax(to_numpy(classifier(patch[None])["logits"])[0])

    patches, mean = classify_patches(
        probabilities_of,
        images,
        outputs["boxes"],
        outputs["valid"],
        outputs["branch"],
        SIZES,
    )
    np.testing.assert_allclose(outputs["patch_probabilities"], patches, atol=1e-4)
    np.testing.assert_allclose(np.exp(outputs["logits"]), mean, atol=1e-4)
    # The boxes are those of the branch's best cells for the decided class.
    maps = localizer.predict(images, verbose=0)
    for index, branch in enumerate(outputs["branch"]):
        size, label = SIZES[branch][0], outputs["label"][index]
        assert maps[f"logits_{size}"][index].argmax() == label
        evidence = maps[f"evidence_{size}"][index, :, :, label]
        row, column = np.unravel_index(evidence.argmax(), evidence.shape)
        corner = 2 * row, 2 * column
        box = [*corner, corner[0] + size, corner[1] + size]
        np.testing.assert_array_equal(outputs["boxes"][index, 0], box)


def test_all_slots_give_the_same(wanted, networks):
    padded = patch_classifier(*networks, **SELECTION, gather=False)
    same(predictions(padded), wanted)


def test_no_image_is_localised_and_no_patch_classified_twice(model, networks):
    if not can_gather():
        pytest.skip("JAX computes all slots")
    localizer, classifier = networks
    images = random_images()
    outputs = model.predict_on_batch(images)  # also traces
    counted(localizer), counted(classifier)
    model.predict_on_batch(images)
    assert counted(localizer) == (1, len(images))
    calls = len(set(outputs["branch"]))
    assert counted(classifier) == (calls, outputs["valid"].sum())


def test_saved_model_is_the_same(model, wanted, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    same(predictions(loaded), wanted)
    assert cost_of(loaded) == cost_of(model)


def test_exported_with_any_batch_size(model, wanted, tmp_path):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("a SavedModel of TensorFlow")
    import tensorflow as tf

    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    images = random_images()
    for count in (1, 5):
        same(
            served.serve(tf.constant(images[:count])),
            {name: value[:count] for name, value in wanted.items()},
        )


def test_cost_is_that_of_the_localiser_and_of_each_patch(model, wanted, networks):
    localizer, classifier = networks
    outputs = wanted
    costs = [multiply_adds(classifier, (*size, 3)) for size in SIZES]
    each = [
        costs[branch] * valid.sum()
        for branch, valid in zip(outputs["branch"], outputs["valid"], strict=True)
    ]
    found = cost_of(model)
    patches = outputs["valid"].sum(axis=1)
    without = found.mean(outputs["branch"], patches, with_localizer=False)
    assert without == pytest.approx(np.mean(each))
    total = found.mean(outputs["branch"], patches)
    assert total == pytest.approx(np.mean(each) + multiply_adds(localizer))
    most = max(costs[0] * 4, costs[1] * 3, costs[2] * 2)
    assert multiply_adds(model) == multiply_adds(localizer) + most


def preprocessed(network, spec, resize, input_shape):
    images = keras.Input(input_shape)
    x = ImagePreprocessing(spec, resize=resize)(images)
    return keras.Model(images, network(x))


def test_models_with_their_own_preprocessing():
    """Raw pixels in; the size is that of the localiser's spec."""
    spec = ImageSpec(29, 31, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    raw = keras.Input((None, None, 3))
    pixels = ImagePreprocessing(spec)(raw)
    evidence = keras.layers.Conv2D(4, 7, strides=2, name="evidence_7")(pixels)
    logits = keras.layers.GlobalAveragePooling2D()(evidence)
    localizer = keras.Model(raw, {"logits_7": logits, "evidence_7": evidence})
    assert branches_of(localizer)[0]["patch_size"] == 7
    inner = small_classifier(classes=4)
    classifier = preprocessed(inner, spec, False, (None, None, 3))
    model = patch_classifier(localizer, classifier, max_patches=2)
    assert model.input_shape == (None, 29, 31, 3)
    assert spec_of(model) == spec
    images = random_images(2)
    outputs = model.predict(images, verbose=0)
    y, x = outputs["boxes"][0, 0, :2]
    patch = (images[:1, y : y + 7, x : x + 7] / 255 - spec.mean) / spec.std
    wanted = softmax(to_numpy(inner(patch.astype("float32"))["logits"]))[0]
    np.testing.assert_allclose(outputs["patch_probabilities"][0, 0], wanted, atol=1e-4)
    with pytest.raises(ValueError, match=r"localiser takes, \(29, 31\)"):
        patch_classifier(localizer, classifier, max_patches=2, image_size=(33, 31))


def test_refusals(model, networks):
    localizer, classifier = networks
    fixed = small_classifier(input_shape=(11, 11, 3))
    with pytest.raises(ValueError, match=r"takes \(11, 11, 3\)"):
        patch_classifier(localizer, fixed, max_patches=2)
    grey = small_classifier(input_shape=(None, None, 1))
    with pytest.raises(ValueError, match=r"patches \(7, 7, 3\)"):
        patch_classifier(localizer, grey, max_patches=2)
    anywhere = small_localizer(image_size=(None, None))
    with pytest.raises(ValueError, match="Expected `image_size`"):
        patch_classifier(anywhere, classifier, max_patches=2)
    with pytest.raises(ValueError, match="at least 15 x 15 pixels.*Received: 14 x 31"):
        patch_classifier(anywhere, classifier, max_patches=2, image_size=(14, 31))
    for shape in [(1, 29, 31, 1), (1, 29, 31, 4), (1, 23, 31, 3)]:
        with pytest.raises(ValueError, match=r"29, 31, 3\), found shape"):
            model(np.zeros(shape, "float32"))
