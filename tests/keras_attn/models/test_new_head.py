"""New heads: with the old weights they give the old logits."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_attn import ImageSpec, adopt
from keras_attn.models.new_head import freeze_statistics, with_new_head

NAMES = ("a", "b", "c")
SPEC = ImageSpec(16, 16, std=(1 / 255,) * 3, class_names=NAMES)


def body(x):
    x = layers.Conv2D(4, 3, 2, "same", name="conv")(x)
    x = layers.BatchNormalization(name="norm")(x)
    return layers.ReLU(name="last")(x)


def pooled(x):
    return layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(body(x)))


def flattened(x):
    x = layers.Dense(5, "relu", name="hidden")(layers.Flatten()(body(x)))
    return layers.Dense(3, "softmax", name="scores")(x)


def convolved(x):
    x = layers.GlobalAveragePooling2D(keepdims=True)(body(x))
    return layers.Flatten()(layers.Conv2D(3, 1, name="scores")(x))


def nested(x):
    inputs = keras.Input((16, 16, 3))
    inner = keras.Model(inputs, body(inputs), name="inner")
    x = layers.Conv2D(3, 1, name="conv")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(inner(x))
    return layers.Dense(3, "softmax", name="scores")(x)


def network(end):
    inputs = keras.Input((16, 16, 3))
    keras.utils.set_random_seed(0)
    return adopt(keras.Model(inputs, end(inputs)), NAMES, "0..255")


IMAGES = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), "uint8")


@pytest.mark.parametrize("end", [pooled, flattened, convolved, nested])
def test_old_weights_give_old_logits(end, tmp_path):
    model = network(end)
    found = with_new_head(model, SPEC)
    head = found.model.get_layer("logits")
    assert found.layers[-1] == "logits" and found.last_map.startswith("last")
    # The last kernel and bias of the old model are those of its head.
    kernel, bias = (np.array(each) for each in model.weights[-2:])
    kernel = np.reshape(kernel, (-1, 3))
    assert kernel.shape == head.kernel.shape
    head.set_weights([kernel, bias])
    logits = found.model.predict(IMAGES, verbose=0)["logits"]
    expected = model.predict(IMAGES, verbose=0)["logits"]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    found.model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(IMAGES, verbose=0)["logits"], logits)


def test_a_pooling_replaces_what_is_behind_the_map():
    found = with_new_head(network(flattened), SPEC, "gem", dropout=0.1)
    assert "hidden" not in [layer.name for layer in found.model.layers]
    assert found.layers == ("pool", "head_dropout", "logits")
    freeze_statistics(found.model)
    assert not found.model.get_layer("norm").trainable_weights


def test_an_unknown_pooling_names_the_nearest():
    with pytest.raises(ValueError, match="'gem'"):
        with_new_head(network(pooled), SPEC, "gems")
