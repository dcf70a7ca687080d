"""A model of models, and the same written out in NumPy."""

import keras
import numpy as np
from keras import layers

SIZE, CHANNELS, CLASSES = (6, 10), 3, 4


def set_random_weights(model, seed=1, scale=0.5):
    random = np.random.default_rng(seed)
    weights = model.get_weights()
    model.set_weights([scale * random.standard_normal(w.shape) for w in weights])


def conv(filters, name, **options):
    # Of zeros, since random weights take JAX long to compile.
    options = {"activation": "relu", "kernel_initializer": "zeros", **options}
    return layers.Conv2D(filters, 1, name=name, **options)


def nested_model(dtype=None, activation="softmax"):
    """Rescaling -> backbone(stem(conv) -> pool -> conv) -> head(mean -> dense)."""
    options = {"dtype": dtype}
    inputs = keras.Input((*SIZE, CHANNELS))
    stem = keras.Model(inputs, conv(5, "first", **options)(inputs), name="stem")
    inputs = keras.Input((*SIZE, CHANNELS))
    x = layers.AveragePooling2D(2, name="pool", **options)(stem(inputs))
    backbone = keras.Model(inputs, conv(7, "last", **options)(x), name="backbone")
    head = keras.Sequential(
        [
            keras.Input((SIZE[0] // 2, SIZE[1] // 2, 7)),
            layers.GlobalAveragePooling2D(name="mean", **options),
            layers.Dropout(0.5, **options),
            layers.Dense(CLASSES, activation, name="top", **options),
        ],
        name="head",
    )
    model = keras.Sequential(
        [
            keras.Input((*SIZE, CHANNELS)),
            layers.Rescaling(0.1, name="scale", **options),
            backbone,
            head,
        ],
        name="outer",
    )
    set_random_weights(model)
    return model


def random_images(seed=2, count=3):
    shape = (count, *SIZE, CHANNELS)
    return np.random.default_rng(seed).uniform(0, 10, shape).astype("float32")


def by_hand(model, images):
    """Features of `first` and `last` and the logits, in float64."""
    first, first_bias, last, last_bias, top, top_bias = (
        weight.astype("float64") for weight in model.get_weights()
    )
    x = np.maximum(0.1 * images @ first[0, 0] + first_bias, 0)
    pooled = x.reshape(len(x), SIZE[0] // 2, 2, SIZE[1] // 2, 2, -1).mean(axis=(2, 4))
    features = np.maximum(pooled @ last[0, 0] + last_bias, 0)
    return x, features, features.mean(axis=(1, 2)) @ top + top_bias


def slope_at_first(model, features, labels):
    """The logit's derivative by the features of `first`, by the chain rule."""
    _, _, last, _, top, _ = model.get_weights()
    cells = features.shape[1] * features.shape[2]
    slope = (features > 0) * top.T[labels][:, None, None, :] / cells
    slope = slope @ last[0, 0].T / 4
    return slope.repeat(2, axis=1).repeat(2, axis=2)
