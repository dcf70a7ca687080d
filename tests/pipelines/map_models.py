"""Models whose maps are known by hand."""

import keras


def grey_model(height, width, cell=1, scale=1 / 255, **names):
    """The mean of the channels, in [0, 1], averaged over cells of `cell` pixels."""
    images = keras.Input((height, width, 3), **names)
    x = keras.layers.Rescaling(scale)(images)
    grey = keras.layers.Conv2D(
        1, cell, cell, use_bias=False, kernel_initializer="ones", dtype="float32"
    )
    x = grey(x)
    grey.set_weights([weight / (3 * cell**2) for weight in grey.get_weights()])
    return keras.Model(images, x)
