from typing import Literal

import keras

from keras_attn.layers._maps import MapLayer
from keras_attn.ops.precision import float_dtype
from keras_attn.ops.sampling import warp


class Deformation(MapLayer):
    """Base of layers that read a map along one field for all channels.

    A subclass defines `field(inputs)`, which returns `(batch, height, width, 1, 2)` in
    float32 at least, and may change `outside`, the padding of the map.
    """

    outside: Literal["border", "zeros"] = "border"

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, inputs):
        fields = self.field(inputs)
        return {"features": warp(inputs, fields, self.outside), "fields": fields}

    def window_steps(self):
        """`None`: where a cell reads depends on the whole map."""
        return None

    def multiply_adds(self, input_shape):
        """Multiply-adds of the sampling: four neighbours of every value."""
        _, height, width, channels = input_shape
        return 4 * height * width * channels

    def compute_output_shape(self, input_shape):
        return {
            "features": tuple(input_shape),
            "fields": (*input_shape[:-1], 1, 2),
        }

    def compute_output_spec(self, inputs):
        shapes = self.compute_output_shape(inputs.shape)
        return {
            "features": keras.KerasTensor(shapes["features"], self.compute_dtype),
            "fields": keras.KerasTensor(
                shapes["fields"], float_dtype(self.compute_dtype)
            ),
        }
