"""Classifiers of KerasHub, tiny and untrained: adopted, explained and exported."""

import keras
import numpy as np
import pytest

from keras_attn import adopt, explain, spec_of
from keras_attn.models.hub import of_hub
from keras_attn.training.serving.export import export_formats
from keras_attn.training.trained import load_trained

hub = pytest.importorskip("keras_hub")

SIZE = 32
IMAGES = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), "uint8")


def resnet():
    backbone = hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=(SIZE, SIZE, 3),
    )
    return hub.models.ResNetImageClassifier(backbone, num_classes=3)


def efficientnet():
    backbone = hub.models.EfficientNetBackbone(
        stackwise_width_coefficients=[0.25] * 2,
        stackwise_depth_coefficients=[1.0] * 2,
        stackwise_block_types=["unfused", "unfused"],
        stackwise_kernel_sizes=[3, 3],
        stackwise_num_repeats=[1, 1],
        stackwise_input_filters=[16, 24],
        stackwise_output_filters=[24, 32],
        stackwise_expansion_ratios=[1, 2],
        stackwise_strides=[1, 2],
        stackwise_squeeze_and_excite_ratios=[0.25, 0.25],
        input_shape=(SIZE, SIZE, 3),
    )
    return hub.models.EfficientNetImageClassifier(backbone, num_classes=3)


def vit():
    backbone = hub.models.ViTBackbone(
        image_shape=(SIZE, SIZE, 3),
        patch_size=8,
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        mlp_dim=16,
    )
    return hub.models.ViTImageClassifier(backbone, num_classes=3)


def dinov2():
    backbone = hub.models.DINOV2Backbone(
        patch_size=8,
        num_layers=2,
        hidden_dim=16,
        num_heads=2,
        intermediate_dim=32,
        image_shape=(SIZE, SIZE, 3),
    )
    tokens = backbone(backbone.inputs)
    pooled = keras.ops.mean(tokens, axis=1)
    scores = keras.layers.Dense(3, activation="softmax")(pooled)
    return keras.Model(backbone.inputs, scores)


@pytest.mark.parametrize("make", [resnet, efficientnet, vit, dinov2])
def test_adopted_explained_and_exported(make, tmp_path):
    theirs = make()
    model = adopt(theirs, ["a", "b", "c"], pixels="0..1")
    prepared = IMAGES.astype("float32") / 255
    expected = theirs(prepared, training=False)
    found = model(IMAGES, training=False)
    found = found.get("probabilities", found["logits"])
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
    if make in (resnet, efficientnet):
        assert explain.grad_cam(model, IMAGES).shape == (2, SIZE, SIZE)
    else:
        maps = explain.occlusion(model, IMAGES, window=16, stride=16)
        assert maps.shape == (2, SIZE, SIZE)
    model.save(tmp_path / "theirs.keras")
    assert load_trained(tmp_path / "theirs.keras").class_names == ("a", "b", "c")
    folders = export_formats(tmp_path / "theirs.keras", output=tmp_path / "saved")
    assert (folders["saved_model"] / "saved_model.pb").is_file()


def test_pixels_of_a_preprocessor():
    classifier = resnet()
    converter = hub.layers.ResNetImageConverter(
        image_size=(SIZE, SIZE), scale=[1 / 64, 1 / 32, 1 / 64], offset=[-2, -1, 0]
    )
    classifier.preprocessor = hub.models.ResNetImageClassifierPreprocessor(converter)
    opened = of_hub(classifier)
    model = adopt(opened.model, pixels=opened.pixels, size=opened.size)
    assert spec_of(model).height == SIZE
    pixels = keras.Model(model.input, model.get_layer("pixels").output)(IMAGES)
    wanted = IMAGES / np.array([64, 32, 64]) - np.array([2, 1, 0])
    np.testing.assert_allclose(pixels, wanted, atol=1e-4)
