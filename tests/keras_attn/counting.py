"""Small models for the tests of patches, and a layer that counts what it sees."""

import keras
import numpy as np
from keras import layers, ops


@keras.saving.register_keras_serializable(package="tests")
class Counter(layers.Layer):
    """Passes its inputs on, and counts its calls and their examples."""

    def build(self, input_shape):
        self.calls = self.add_weight(name="calls", initializer="zeros", trainable=False)
        self.examples = self.add_weight(
            name="examples", initializer="zeros", trainable=False
        )

    def call(self, inputs):
        # JAX forbids changing variables in a compiled branch.
        if keras.backend.backend() != "jax":
            self.calls.assign_add(1.0)
            self.examples.assign_add(ops.cast(ops.shape(inputs)[0], "float32"))
        return inputs

    def window_steps(self):
        return []

    def compute_output_shape(self, input_shape):
        return input_shape


def small_classifier(
    classes=5,
    input_shape=(None, None, 3),
    probabilities=False,
    plain=False,
    scale=3.0,
    seed=0,
):
    """A fully convolutional classifier whose first layer counts."""
    inputs = keras.Input(input_shape)
    x = layers.Rescaling(1 / 128, -1)(Counter(name="counter")(inputs))
    x = layers.Conv2D(6, 3, strides=2, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(classes, "softmax" if probabilities else None)(x)
    model = keras.Model(inputs, x if plain else {"logits": x})
    _draw_weights(model, [1.0, scale], seed)
    return model


def counted(model):
    """Calls and examples that the model's counter has seen since the last time."""
    counter = model.get_layer("counter")
    numbers = int(counter.calls), int(counter.examples)
    counter.calls.assign(0.0)
    counter.examples.assign(0.0)
    return numbers


def small_localizer(classes=5, image_size=(29, 31), sizes=(7, 11, 15), seed=2):
    """Branches that see 7, 11 and 15 pixels, 2 apart; its first layer counts."""
    inputs = keras.Input((*image_size, 3))
    x = layers.Rescaling(1 / 128, -1)(Counter(name="counter")(inputs))
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    outputs = {}
    for size in sizes:
        evidence = layers.Conv2D(classes, (size - 1) // 2, name=f"evidence_{size}")(x)
        outputs[f"evidence_{size}"] = evidence
        outputs[f"logits_{size}"] = layers.GlobalAveragePooling2D()(evidence)
    model = keras.Model(inputs, outputs, name="localizer")
    _draw_weights(model, [0.4, *(24 / (size - 1) for size in sizes)], seed)
    return model


def _draw_weights(model, scales, seed):
    """The same normal kernels of these standard deviations on every backend."""
    random = np.random.default_rng(seed)
    weighted = [layer for layer in model.layers if hasattr(layer, "kernel")]
    for layer, scale in zip(weighted, scales, strict=True):
        layer.kernel.assign(random.normal(0, scale, layer.kernel.shape))
        layer.bias.assign(random.normal(0, 0.3, layer.bias.shape))
