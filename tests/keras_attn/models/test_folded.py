import keras
import numpy as np
import pytest
from keras import layers

from keras_attn.models import folded
from tests.harness import to_numpy


@pytest.fixture(scope="module")
def model():
    """Pairs of all kinds, one of them in an inner model, and one that must stay."""
    inputs = keras.Input((9, 11, 3), name="images")
    x = layers.Conv2D(6, 3, strides=2, use_bias=False, name="first")(inputs)
    x = layers.BatchNormalization(scale=False, name="same")(x)
    inner_inputs = keras.Input((4, 5, 6))
    y = layers.DepthwiseConv2D(3, depth_multiplier=2, name="first")(inner_inputs)
    y = layers.BatchNormalization(center=False, name="same")(layers.ReLU()(y))
    y = layers.DepthwiseConv2D(2, depth_multiplier=2, padding="same")(y)
    y = layers.BatchNormalization(epsilon=0.1)(y)
    inner = keras.Model(inner_inputs, y, name="inner")
    x = inner(x)
    taken_twice = layers.Conv2D(4, 1)(x)
    x = layers.Add()([layers.BatchNormalization()(taken_twice), taken_twice])
    x = layers.Dense(3)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, {"logits": x, "twice": taken_twice})
    random = np.random.default_rng(0)
    model.set_weights([random.uniform(0.5, 1.5, w.shape) for w in model.weights])
    return model


def test_has_the_same_outputs(model):
    images = np.random.default_rng(1).normal(size=(2, 9, 11, 3)).astype("float32")
    before = [to_numpy(each) for each in model.get_weights()]
    fast = folded(model)
    kinds = [type(layer) for layer in fast.layers]
    assert kinds.count(layers.BatchNormalization) == 2
    assert kinds.count(layers.DepthwiseConv2D) == 2
    assert not fast.trainable_weights
    wanted = model(images, training=False)
    for name, found in fast(images, training=False).items():
        np.testing.assert_allclose(
            to_numpy(found), to_numpy(wanted[name]), rtol=1e-4, atol=1e-4
        )
    nested = keras.Input((9, 11, 3))
    outer = keras.Model(nested, fast(nested)["logits"])
    np.testing.assert_allclose(
        to_numpy(outer(images)), to_numpy(wanted["logits"]), rtol=1e-4, atol=1e-4
    )
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_is_saved_as_any_other(model, tmp_path):
    fast = folded(model)
    fast.save(tmp_path / "fast.keras")
    loaded = keras.saving.load_model(tmp_path / "fast.keras")
    images = np.ones((1, 9, 11, 3), "float32")
    np.testing.assert_allclose(
        to_numpy(loaded(images)["logits"]), to_numpy(fast(images)["logits"]), rtol=1e-6
    )


def test_refuses_a_model_without_a_graph():
    class Subclassed(keras.Model):
        pass

    with pytest.raises(ValueError, match="functional"):
        folded(Subclassed())
