"""Ends of stages, of networks whose layers have names that lead nowhere."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_attn import insert, places
from tests.harness import to_numpy, unweighted

APPLICATIONS = {
    "ResNet50": [
        "conv2_block3_out",
        "conv3_block4_out",
        "conv4_block6_out",
        "conv5_block3_out",
    ],
    "MobileNetV2": [
        "expanded_conv_project_BN",
        "block_2_add",
        "block_5_add",
        "block_12_add",
        "out_relu",
    ],
    "MobileNet": [f"conv_pw_{number}_relu" for number in (1, 3, 5, 11, 13)],
    "VGG16": ["block1_conv2", "block2_conv2"]
    + ["block3_conv3", "block4_conv3", "block5_conv3"],
}


@pytest.mark.parametrize("name", APPLICATIONS)
@unweighted()
def test_networks_of_keras(name):
    model = getattr(keras.applications, name)(weights=None)
    found = places(model)
    assert [place.layer for place in found] == APPLICATIONS[name]
    sides = [224 // place.stride[0] for place in found]
    assert [place.size for place in found] == [(side, side) for side in sides]


def backbone(sizes=(None, None)):
    """A stem, a stage that ends in a sum, and one of an inverted bottleneck."""

    def conv(filters, kernel, stride=1, name=None):
        options = {"padding": "same", "name": name, "use_bias": False}
        return layers.Conv2D(filters, kernel, stride, activation="relu", **options)

    images = keras.Input((*sizes, 3))
    x = conv(4, 3, 2)(images)
    x = conv(4, 3, 2)(x)
    y = conv(4, 3)(x)
    x = layers.ReLU(name="first")(layers.Add()([x, y]))
    x = conv(8, 1)(x)
    x = layers.DepthwiseConv2D(3, 2, padding="same")(x)
    x = layers.BatchNormalization(name="second")(conv(6, 1)(conv(8, 3)(x)))
    x = conv(16, 1)(x)
    x = layers.ZeroPadding2D(1)(x)
    x = conv(16, 3)(conv(16, 3, 2)(x))
    x = layers.Activation("relu", name="third")(x)
    return keras.Model(images, x, name="backbone")


def test_a_nested_network_of_any_size():
    images = keras.Input((None, None, 3))
    x = layers.GlobalAveragePooling2D()(backbone()(images))
    model = keras.Model(images, layers.Dense(3)(x))
    found = places(model, (32, 64))
    assert [place.layer for place in found] == [
        "backbone/first",
        "backbone/second",
        "backbone/third",
    ]
    assert [place.size for place in found] == [(8, 16), (4, 8), (3, 5)]
    assert [place.channels for place in found] == [4, 6, 16]
    assert found[0].stride == (4, 4) and found[0].receptive_field == (15, 15)
    new = insert(model, "auto", "squeeze_excitation")
    assert new.get_layer("backbone").get_layer("backbone_third_squeeze_excitation")
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    np.testing.assert_array_equal(*map(to_numpy, (new(images), model(images))))


def test_an_input_and_an_output_beside_the_images():
    images, numbers = keras.Input((32, 32, 3)), keras.Input((4,))
    network = backbone((32, 32))
    first = keras.Model(
        network.input, [network.get_layer("first").output, network.output]
    )
    early, x = first(images)
    x = layers.Concatenate()([layers.Flatten()(x), layers.Dense(2)(numbers)])
    outputs = [layers.Dense(3)(x), layers.Dense(3)(layers.Flatten()(early))]
    found = places(keras.Model([images, numbers], outputs))
    assert [place.layer.split("/")[1] for place in found] == [
        "first",
        "second",
        "third",
    ]


def test_a_network_without_a_head_ends_in_its_last_stage():
    found = [place.layer for place in places(backbone(), 32)]
    assert found == ["first", "second", "third"]


def test_places_behind_a_layer_of_unknown_windows():
    class Unknown(layers.Layer):
        def call(self, inputs):
            return 2 * inputs

    known = backbone((32, 32))
    images = keras.Input((32, 32, 3))
    x = known(Unknown()(images))
    found = places(keras.Model(images, layers.Dense(2)(layers.Flatten()(x))))
    assert [place.layer.split("/")[-1] for place in found][-3:] == [
        "first",
        "second",
        "third",
    ]
    assert found[-1].receptive_field is None and found[-3].stride == (4, 4)


def test_no_places():
    inputs = keras.Input((8,))
    model = keras.Model(inputs, layers.Dense(2)(inputs), name="dense")
    assert places(model) == []
    with pytest.raises(ValueError, match="'dense', which has none"):
        insert(model, "auto", "cbam")
    with pytest.raises(ValueError, match="functional"):
        places(keras.Sequential([layers.Dense(2)]))
