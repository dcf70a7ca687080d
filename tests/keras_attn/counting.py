"""Small models for the tests of patches, and a layer that counts what it sees."""

import keras
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

    def compute_output_shape(self, input_shape):
        return input_shape


def small_classifier(
    classes=5, input_shape=(None, None, 3), probabilities=False, plain=False, seed=0
):
    """A fully convolutional classifier whose first layer counts."""
    random = keras.initializers.RandomNormal

    inputs = keras.Input(input_shape)
    x = layers.Rescaling(1 / 128, -1)(Counter(name="counter")(inputs))
    x = layers.Conv2D(
        6, 3, strides=2, activation="relu", kernel_initializer=random(0, 1, seed)
    )(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(
        classes,
        "softmax" if probabilities else None,
        kernel_initializer=random(0, 3, seed + 1),
        bias_initializer=random(0, 1, seed + 2),
    )(x)
    return keras.Model(inputs, x if plain else {"logits": x})


def counted(model):
    """Calls and examples that the model's counter has seen since the last time."""
    counter = model.get_layer("counter")
    numbers = int(counter.calls), int(counter.examples)
    counter.calls.assign(0.0)
    counter.examples.assign(0.0)
    return numbers
