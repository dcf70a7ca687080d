"""Layers of maps whose channels come last."""

import keras


class MapLayer(keras.layers.Layer):
    """Base of layers that take maps `(batch, height, width, channels)` only.

    Raises:
        ValueError: When called while Keras's image data format is `channels_first`: the
            width would be taken for the channels.
    """

    def __call__(self, *args, **kwargs):
        if keras.config.image_data_format() != "channels_last":
            raise ValueError(
                f"Expected maps (batch, height, width, channels) in {self.name!r}: "
                f"{type(self).__name__} does not take channels first. Received: "
                "image_data_format='channels_first'. Call "
                "keras.config.set_image_data_format('channels_last') and build the "
                "model for such maps"
            )
        return super().__call__(*args, **kwargs)


class MapBlock(MapLayer):
    """Base of layers that return a map of the shape that they take.

    Every cell depends on the whole map through gates or the like, unless
    `window_steps` is overridden.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def window_steps(self):
        return None

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)
