import keras
import numpy as np
import pytest

from keras_attn.early_exit.policy import ExitRule
from keras_attn.models.early_exit import early_exit_classifier, exit_table, with_exits
from tests.keras_attn.counting import small_classifier, small_localizer
from tests.keras_attn.layers.test_early_exit import RESIZED, Agreement, Setting

SELECTION = {"max_patches": 2, "iou_threshold": 0.05, "coverage": 0.1}
THRESHOLDS = [0.55, 0.78]


@pytest.fixture(scope="module")
def networks():
    setting = Setting()
    return small_localizer(sizes=(11,)), setting.resized, setting.patches


@pytest.fixture(scope="module")
def images():
    return Setting().images


@pytest.fixture(scope="module")
def model(networks):
    return early_exit_classifier(
        *networks, resized_size=RESIZED, thresholds=THRESHOLDS, **SELECTION
    )


@pytest.fixture(scope="module")
def wanted(model, images):
    return predictions(model, images)


def predictions(model, images):
    return model.predict(images, batch_size=3, verbose=0)


def same(outputs, wanted):
    assert set(outputs) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(
            np.asarray(outputs[name]), value, rtol=1e-4, atol=1e-4, err_msg=name
        )


def test_outputs_have_their_shapes_and_types(model, wanted):
    for name, tensor in model.output.items():
        assert wanted[name].shape == (9, *tensor.shape[1:]), name
        assert wanted[name].dtype == tensor.dtype, name
    assert 1 < len(set(wanted["exit"]))


@pytest.mark.parametrize("policy", [None, Agreement(0.7)])
def test_saved_model_is_the_same(model, images, wanted, policy, tmp_path):
    if policy:
        model = with_exits(model, policy=policy)
        wanted = predictions(model, images)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    same(predictions(loaded, images), wanted)


def test_a_fitted_rule_of_thresholds_exits_as_thresholds_do(networks, images, wanted):
    # Stops where `doubt - bound <= 0`, doubt being 1 - confidence.
    bounds = [1 - threshold for threshold in THRESHOLDS]
    rule = ExitRule(1.0, 0.5, [[-bound, 1.0, 0.0, 0.0] for bound in bounds])
    other = early_exit_classifier(
        *networks, resized_size=RESIZED, policy=rule, **SELECTION
    )
    same(predictions(other, images), wanted)


def test_exported_with_any_batch_size(model, images, wanted, tmp_path):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("a SavedModel of TensorFlow")
    import tensorflow as tf

    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    for count in (1, 5):
        same(
            served.serve(tf.constant(images[:count])),
            {name: value[:count] for name, value in wanted.items()},
        )


def test_table_of_all_exits(model, images):
    labels = np.arange(9) % 5
    parts = slice(0, 3), slice(3, 6), slice(6, 9)
    table = exit_table(model, [(images[part], labels[part]) for part in parts])
    never = predictions(with_exits(model), images)
    layer = model.get_layer("early_exit")
    assert (never["exit"] == never["valid"].sum(axis=1)).all()
    np.testing.assert_allclose(table["confidence"], never["confidence"], rtol=1e-4)
    wanted = never["predictions"] == labels[:, None]
    np.testing.assert_array_equal(table["correct"], wanted)
    assert table["correct"].dtype == bool and table["correct"].any()
    for stage in range(3):
        patches = [min(stage, valid.sum()) for valid in never["valid"]]
        each = [layer.network_costs["patch"][branch] for branch in never["branch"]]
        cost = layer.network_costs["resized"] + np.dot(patches, each) / len(images)
        cost += layer.network_costs["localizer"] if stage else 0
        assert table["cost"][stage] == pytest.approx(cost)
    # Images that exit at once cost what the table has for the first exit.
    first = predictions(with_exits(model, thresholds=0.0), images)
    assert first["cost"] == pytest.approx(table["cost"][0])
    assert never["cost"].mean() == pytest.approx(table["cost"][-1])
    with pytest.raises(ValueError, match="at least one batch"):
        exit_table(model, [])


def test_with_exits_shares_the_networks(model):
    other = with_exits(model, policy=Agreement(0.7))
    layers = model.get_layer("early_exit"), other.layers[-1]
    assert layers[0].patch_classifier is layers[1].patch_classifier
    assert isinstance(layers[1].policy, Agreement)
    assert layers[0].policy.thresholds == THRESHOLDS
    with pytest.raises(ValueError, match="from `early_exit_classifier`"):
        with_exits(small_classifier())


def test_refusals(networks):
    localizer, resized, patches = networks
    with pytest.raises(ValueError, match="Expected `resized_size`"):
        early_exit_classifier(*networks, max_patches=2)
    fixed = small_classifier(input_shape=(7, 7, 3))
    with pytest.raises(ValueError, match=r"takes \(7, 7, 3\)"):
        early_exit_classifier(localizer, resized, fixed, 2, resized_size=RESIZED)
    model = early_exit_classifier(localizer, fixed, patches, 2)
    assert model.get_layer("early_exit").resized_size == (7, 7)
    grey = np.zeros((1, 29, 31, 1), "float32")
    with pytest.raises(ValueError, match=r"29, 31, 3\), found .*29, 31, 1\)"):
        model.predict(grey, verbose=0)
