import dataclasses
import importlib

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from keras_attn.graph.costs import trainable_params
from keras_attn.models.catalogue import NETWORKS
from keras_attn.models.downstream import (
    DOWNSTREAM_NETWORKS,
    build_downstream,
    downstream_normalization,
)
from keras_attn.models.hcgnet import hcgnet
from keras_attn.models.resnext import resnext
from keras_attn.preprocessing import ImagePreprocessing, ImageSpec
from tests import harness
from tests.harness import save_legacy_weights, unweighted
from tests.reference import operations

only_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="building is slow elsewhere, and nothing in it depends on the backend",
)


def images_of(*shape):
    return np.random.default_rng(0).uniform(0, 255, shape).astype("float32")


def preprocessed(name):
    """Raw images and what the network wants of them."""
    spec = ImageSpec(64, 64, **downstream_normalization(name))
    raw = keras.Input((None, None, 3), name="raw")
    return raw, ImagePreprocessing(spec, resize=False)(raw)


def write_as_published(network, path):
    """A weights file in the format of those of `keras.applications`."""
    with h5py.File(path, "w") as file:
        save_legacy_weights(file, network)


# ---- networks of keras.applications, with a small one in their place ---------------


def small_application(include_top, weights, input_tensor=None, name=None):
    assert not include_top
    if weights == "imagenet":
        raise Exception("URL fetch failure")
    inputs = keras.Input((None, None, 3)) if input_tensor is None else input_tensor
    x = layers.Conv2D(4, 3, name="conv1_conv")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.Conv2D(5, 2, use_bias=False)(layers.ReLU()(x))
    (source,) = keras.utils.get_source_inputs(inputs)
    return keras.Model(source, x, name=name)


@pytest.fixture
def small_applications(monkeypatch):
    for name in ("resnet50", "densenet169"):
        small = dataclasses.replace(NETWORKS[name], builder=small_application)
        monkeypatch.setitem(NETWORKS, name, small)


def check_published_weights(name, module, reference, model, raw):
    """The reference on its own preprocessing gives the model's pooled features."""
    prepare = importlib.import_module(f"keras.applications.{module}").preprocess_input
    features = reference(prepare(raw.copy()))
    pooled = keras.Model(model.input, model.get_layer("pool").output)(raw)
    wanted = harness.to_numpy(keras.ops.mean(features, axis=(1, 2)))
    assert np.ptp(wanted) > 0
    np.testing.assert_allclose(harness.to_numpy(pooled), wanted, 1e-3, 1e-4)


@pytest.mark.parametrize(
    "name, module", [("resnet50", "resnet"), ("densenet169", "densenet")]
)
def test_published_weights_meet_their_preprocessing(
    name, module, small_applications, tmp_path
):
    reference = small_application(False, None)
    harness.randomize(reference)
    write_as_published(reference, tmp_path / "published.h5")
    _, images = preprocessed(name)
    model = build_downstream(
        name, 3, input_tensor=images, weights=tmp_path / "published.h5"
    )
    assert model.input.name == "raw"
    check_published_weights(name, module, reference, model, images_of(2, 9, 7, 3))


@only_tensorflow
def test_resnet50_of_keras_applications(tmp_path):
    """Its variant costs 3.86 G at 224 x 224; the paper's is in test_resnext.py."""
    reference = keras.applications.ResNet50(weights=None, include_top=False)
    write_as_published(reference, tmp_path / "published.h5")
    _, images = preprocessed("resnet50")
    model = build_downstream(
        "resnet50", 1000, input_tensor=images, weights=tmp_path / "published.h5"
    )
    check_published_weights(
        "resnet50", "resnet", reference, model, images_of(1, 63, 47, 3)
    )
    # As printed by keras.applications, less the running statistics.
    assert model.count_params() == 25_636_712
    assert trainable_params(model) == 25_583_592
    for size, wanted in ((63, 0.317), (95, 0.710), (111, 1.022), (224, 3.858)):
        found = operations.count(model, size, size)["multiply_adds"]
        assert round(found / 1e9, 3) == wanted


@only_tensorflow
@unweighted()
def test_densenet169_of_keras_applications():
    model = build_downstream("densenet169", 1000)
    assert model.count_params() == 14_307_880
    # AnchorNet paper, table 3: 3.4 G.
    found = operations.count(model, 224, 224)["multiply_adds"]
    assert round(found / 1e9, 2) == 3.36


def test_weight_decay_reaches_networks_without_an_argument_for_it(
    small_applications, tmp_path
):
    model = build_downstream("densenet169", 3, weight_decay=0.5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    squares = sum(
        float(np.sum(keras.ops.convert_to_numpy(weight) ** 2))
        for weight in model.trainable_weights
        if weight.path.endswith("kernel")
    )
    for one in (model, loaded):
        assert len(one.losses) == 3
        np.testing.assert_allclose(sum(map(float, one.losses)), 0.5 * squares, 1e-4)


def test_says_what_to_do_when_the_download_fails(small_applications):
    with pytest.raises(FileNotFoundError, match="local copy of resnet50_weights_"):
        build_downstream("resnet50", 3, weights="imagenet")


# ---- networks of our own ---------------------------------------------------------


@only_tensorflow
def test_small_resnet_is_small():
    model = build_downstream("small_resnet", 10, weight_decay=1e-4)
    assert trainable_params(model) == 2_798_314
    found = operations.count(model, 160, 160)["multiply_adds"]
    assert round(found / 1e9, 2) == 0.23
    kernels = [w for w in model.trainable_weights if w.path.endswith("kernel")]
    assert len(model.losses) == len(kernels) == 1 + 16 + 3 + 1


def test_own_weights_fit_on_any_input_of_any_size(tmp_path):
    path = tmp_path / "small.weights.h5"
    model = build_downstream("small_resnet", 3)
    harness.randomize(model)
    model.save_weights(path)
    spec = downstream_normalization("small_resnet")
    _, images = preprocessed("small_resnet")
    other = build_downstream("small_resnet", 3, input_tensor=images, weights=path)
    for height, width in ((63, 47), (48, 50)):
        raw = images_of(2, height, width, 3)
        normalized = (raw / 255 - np.array(spec["mean"])) / np.array(spec["std"])
        normalized = normalized.astype("float32")
        wanted = harness.run(model, normalized, harness.compiled_layer(model))
        found = harness.run(other, raw, harness.compiled_layer(other))
        harness.assert_same_output(found, wanted, 1e-3)


@only_tensorflow
@pytest.mark.parametrize(
    "build",
    [
        lambda **options: build_downstream("small_resnet", 3, **options),
        lambda **options: resnext((1, 1), 4, 3, num_classes=3, **options),
        lambda **options: hcgnet((8, 8), (1, 1), num_classes=3, **options),
    ],
)
def test_one_set_of_weights_for_every_size(build, tmp_path):
    flexible = build()
    harness.randomize(flexible)
    flexible.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for size in (63, 64, 95):
        images = images_of(2, size, size, 3) / 255
        found = harness.run(flexible, images)
        assert found["logits"].shape == (2, 3)
        assert np.ptp(found["logits"], axis=0).min() > 0
        harness.assert_same_output(harness.run(loaded, images), found)
        if size == 64:
            fixed = build(input_shape=(64, 64, 3))
            fixed.set_weights(flexible.get_weights())
            harness.assert_same_output(harness.run(fixed, images), found)


@unweighted()
def test_logits_are_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = build_downstream("small_resnet", 3)
    assert model.output["logits"].dtype == "float32"
    assert model.get_layer("stage4").output.dtype == "bfloat16"


# ---- errors ----------------------------------------------------------------------


def test_refuses_unknown_names_and_says_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'resnext50'"):
        build_downstream("resnxt50", 3)
    with pytest.raises(ValueError, match="Did you mean 'hcgnet_c'"):
        downstream_normalization("hcgnet")


@pytest.mark.parametrize("name", ["resnext50", "hcgnet_c", "small_resnet"])
def test_says_which_networks_have_published_weights(name):
    with pytest.raises(ValueError, match="'resnet50', 'densenet169'"):
        build_downstream(name, 3, weights="imagenet")


@pytest.mark.parametrize("name", DOWNSTREAM_NETWORKS)
def test_refuses_missing_weights(name, tmp_path):
    with pytest.raises(FileNotFoundError, match="which is not there"):
        build_downstream(name, 3, weights=tmp_path / "absent.weights.h5")


def test_refuses_weights_of_something_else(small_applications, tmp_path):
    path = tmp_path / "resnet50.weights.h5"
    build_downstream("resnet50", 4).save_weights(path)
    with pytest.raises(ValueError, match="weights of 'resnet50' with 3 classes"):
        build_downstream("resnet50", 3, weights=path)
    (tmp_path / "published.h5").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="as published for 'densenet169'"):
        build_downstream("densenet169", 3, weights=tmp_path / "published.h5")
    with pytest.raises(ValueError, match=r"'small_resnet' to be a .weights.h5 file"):
        build_downstream("small_resnet", 3, weights=tmp_path / "published.h5")
