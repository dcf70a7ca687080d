"""Blocks by name in a small network: equal answers at the start, then training."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_attn import insert
from keras_attn.layers import get_block, list_blocks, register_block

ARGUMENTS = {
    # More than one hidden unit, which might be dead.
    "squeeze_excitation": {"ratio": 2},
    "class_embedding": {"num_classes": 4},
    "volumetric_transformer": {"estimator_filters": (4,)},
}


# Each step of each block would be traced; JAX compiles single operations.
EAGERLY = keras.backend.backend() == "tensorflow"


def network():
    inputs = keras.Input((8, 8, 3), name="images")
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="map")(inputs)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3, name="deep")(x))
    return keras.Model(inputs, layers.Dense(4, name="head")(x), name="small")


def images(size=2):
    return np.random.default_rng(0).normal(size=(size, 8, 8, 3)).astype("float32")


def logits(model):
    outputs = model(images(), training=False)
    outputs = outputs["logits"] if isinstance(outputs, dict) else outputs
    return keras.ops.convert_to_numpy(outputs)


@pytest.mark.parametrize("block", list_blocks())
def test_answers_are_equal_until_the_block_has_trained(block):
    keras.utils.set_random_seed(1)
    model = network()
    copy = insert(model, "map", block, **ARGUMENTS.get(block, {}))
    np.testing.assert_array_equal(logits(copy), logits(model))
    added = [weight for weight in copy.trainable_weights if "map_" in weight.path]
    before = [keras.ops.convert_to_numpy(weight) for weight in added]
    if isinstance(copy.output, dict):
        copy = keras.Model(copy.inputs, copy.output["logits"])
    copy.compile(keras.optimizers.SGD(0.5), "mse", run_eagerly=EAGERLY)
    copy.fit(images(), np.ones((2, 4)), epochs=3, verbose=0)
    moved = [
        bool(np.any(keras.ops.convert_to_numpy(weight) != old))
        for weight, old in zip(added, before, strict=True)
    ]
    # Biases in front of a softmax or a normalisation have no gradient.
    assert moved and np.mean(moved) > 0.5


@pytest.mark.parametrize("block", list_blocks())
def test_without_the_identity_a_block_is_its_own_equation(block):
    model = network()
    arguments = ARGUMENTS.get(block, {})
    copy = insert(model, "map", block, identity=False, **arguments)
    assert not any("start" in layer.name for layer in copy.layers)
    layer = get_block(block, (None, 8, 8, 8), **arguments)
    layer.build((None, 8, 8, 8))
    layer.set_weights(copy.get_layer(f"map_{block}").get_weights())
    before = keras.Model(model.input, model.get_layer("map").output)(images())
    after = layer(before)
    if isinstance(after, dict):
        after = after["features"]
    rest = model.layers[model.layers.index(model.get_layer("map")) + 1 :]
    for each in rest:
        after = each(after)
    np.testing.assert_allclose(
        logits(copy), keras.ops.convert_to_numpy(after), atol=1e-5
    )


def test_several_places_and_a_second_block_get_names_of_their_own():
    model = insert(network(), ["map", "deep"], "squeeze_excitation", ratio=2)
    assert model.get_layer("map_squeeze_excitation").ratio == 2
    assert model.get_layer("deep_squeeze_excitation_start")
    again = insert(model, "map", "squeeze_excitation")
    assert again.get_layer("map_squeeze_excitation_2")
    np.testing.assert_array_equal(logits(again), logits(model))


def test_blocks_compute_in_the_dtype_of_the_map():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = network()
    finally:
        keras.config.set_dtype_policy("float32")
    copy = insert(model, "map", "squeeze_excitation")
    assert copy.get_layer("map_squeeze_excitation").dtype_policy.name == "mixed_float16"
    np.testing.assert_array_equal(logits(copy), logits(model))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"at": "map", "block": "squeeze_excitaton"}, "Did you mean 'squeeze_excitat"),
        ({"at": "mop", "block": "squeeze_excitation"}, "Nearest: map"),
        (
            {"at": "map", "block": "class_embedding"},
            "needs: num_classes. Received: none of",
        ),
        ({"at": "map", "block": "squeeze_excitation", "rato": 2}, "you mean 'ratio'"),
        ({"at": "head", "block": "squeeze_excitation"}, r"map \(batch, height"),
        (
            {"at": "map", "block": "class_embedding", "num_classes": 4, "filters": 2},
            "keeps the shape",
        ),
        ({"at": "map", "block": layers.ReLU(), "ratio": 2}, "by name only"),
        ({"at": "map", "block": ["squeeze_excitation"] * 2}, "as many blocks"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        insert(network(), **arguments)


def test_a_block_of_ones_own_is_a_class_with_a_name():
    @register_block("halved", factor=0.5)
    class Halved(layers.Layer):
        def __init__(self, factor, **kwargs):
            super().__init__(**kwargs)
            self.factor = factor

        def call(self, inputs):
            return self.factor * inputs

    try:
        assert "halved" in list_blocks()
        copy = insert(network(), "map", "halved", identity=False)
        assert copy.get_layer("map_halved").factor == 0.5
        with pytest.raises(ValueError, match="no block has"):
            register_block("halved")(layers.ReLU)
    finally:
        from keras_attn.layers import _blocks

        del _blocks._BLOCKS["halved"]


@pytest.mark.parametrize("kind", ["int8", "float8"])
def test_behind_a_quantised_layer_a_block_is_not_quantised(kind):
    inputs = keras.Input((8, 8, 3))
    dense = layers.Dense(8, name="map")
    x = layers.GlobalAveragePooling2D()(dense(layers.Conv2D(6, 3)(inputs)))
    model = keras.Model(inputs, layers.Dense(4)(x))
    dense.quantize(kind)
    copy = insert(model, "map", "squeeze_excitation")
    np.testing.assert_allclose(logits(copy), logits(model), atol=1e-6)
    assert copy.get_layer("map_squeeze_excitation").dtype_policy.name == "float32"
