import keras
import numpy as np
import pytest
from keras import layers

from keras_attn.accounting import multiply_adds, trainable_params
from keras_attn.layers import ClassEmbedding
from keras_attn.models import build_model


def test_counts_every_kind_of_layer_by_hand():
    inputs = keras.Input((9, 7, 4))
    x = layers.Conv2D(6, (3, 5), padding="same", strides=2, groups=2)(inputs)  # 5 x 4
    x = layers.DepthwiseConv2D(3)(x)  # 3 x 2
    x = layers.Dense(11)(layers.Flatten()(x))
    model = keras.Model(inputs, x)
    convolution = 5 * 4 * 3 * 5 * (4 // 2) * 6
    depthwise = 3 * 2 * 3 * 3 * 6
    assert multiply_adds(model) == convolution + depthwise + 3 * 2 * 6 * 11


def test_counts_shared_layers_once_an_application_and_nested_models():
    inputs = keras.Input((5,))
    dense = layers.Dense(5)
    nested = keras.Sequential([keras.Input((5,)), layers.Dense(3)])
    model = keras.Model(inputs, nested(dense(dense(inputs))))
    assert multiply_adds(model) == 2 * 25 + 15


def test_counts_the_block_by_hand():
    inputs = keras.Input((8, 6, 16))
    outputs = ClassEmbedding(10, filters=12)(inputs)
    per_cell = 16 * 10 + 10 * 12 + 16 * 12
    assert multiply_adds(keras.Model(inputs, outputs)) == 8 * 6 * per_cell


def test_resnet50_is_the_published_size():
    """Published: 25.6 M parameters and 3.8 to 4.1 G multiply-adds at 224."""
    model = keras.applications.ResNet50(weights=None)
    assert trainable_params(model) == 25_583_592
    assert 3.8e9 < multiply_adds(model) < 4.1e9


def test_rn26_equals_the_sum_of_its_convolutions():
    model = build_model("rn26")
    total = 2560  # the dense layer
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            cells = np.prod(layer.output.shape[1:3])
            total += cells * np.prod(layer.kernel.shape)
    assert multiply_adds(model) == total


def test_leaves_the_model_as_it_was():
    model = build_model("resnet20")
    before = len(model.layers[1]._inbound_nodes)
    multiply_adds(model)
    assert len(model.layers[1]._inbound_nodes) == before


def test_refuses_unknown_sizes():
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layers.Conv2D(4, 3)(inputs))
    with pytest.raises(ValueError, match="fixed spatial sizes"):
        multiply_adds(model)
